r"""Statistics of a model by noise level, and the solvers that use them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.models.curves import Falling, Spline
from scoresde.networks import MLP
from scoresde.reverse.measured import Measured
from solvers.kept import _made

from .cases import gaussian, mixture

FLOAT = torch.float64
# Statistics, and the end points of the authors' DPM_Solver_v3 with them, on 24,000 intervals and in float64, by
# steps and order. With the size r and the rate l, they take s = d log r / d lambda and b = 0.
PUBLISHED = np.load(Path(__file__).parent.parent / "data" / "dpm_solver_v3.npz")
VE = ss.EDM()


def split(model: ss.ScoreModel, X: Tensor, level: float) -> tuple[Tensor, Tensor]:
    r"""The state and the denoised data along the axes of the data."""

    D, known = model.denoise(X, torch.tensor(level, dtype=FLOAT)), model.moments
    return known.split(X - known.mean), known.split(D - known.mean)


def noised(model: ss.Oracle, level: float, count: int = 20_000) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    x = model.data(count, seed=3)
    return x + level * torch.randn(x.shape, generator=draw, dtype=FLOAT)


def measured(model: ss.Oracle, **options: object) -> ss.Curves:
    known = ss.statistics(model, model.data(20_000, seed=1), samples=20_000, **options)
    assert known.curves is not None
    return known.curves


@pytest.mark.parametrize("steps", [6, 12])
@pytest.mark.parametrize("order", [2, 3])
def test_samples_are_those_of_the_published_solver(steps: int, order: int) -> None:
    means = torch.tensor([[-1.2, 0.5], [1.2, -0.5]], dtype=FLOAT)
    model, known = (
        ss.MixtureOracle(means, 0.3, process=VE),
        {n: torch.tensor(PUBLISHED[n]) for n in PUBLISHED},
    )
    curves = ss.Curves(known["levels"], known["rates"], known["sizes"])
    variances = known["variances"]
    model.moments = ss.Moments(torch.zeros(2, dtype=FLOAT), None, variances, curves=curves)
    options = {"steps": steps, "grid": "log_snr", "t_min": 0.01, "denoise": False}
    x = ss.decode(model, known["z"], solver=f"measured_{order}", **options).x
    assert (x - known[f"{steps}_{order}"]).abs().max() < 1e-5


def random_curves(count: int, axes: int) -> ss.Curves:
    draw = torch.Generator().manual_seed(0)
    rates, sizes = torch.rand(2, count, axes, generator=draw, dtype=FLOAT)
    return ss.Curves(torch.logspace(2, -3, count, dtype=FLOAT), rates, 0.1 + sizes)


@pytest.mark.parametrize("rates", ["regression", "slope"])
def test_statistics_of_gaussian_data_are_known_without_sampling_error(rates: str) -> None:
    model = gaussian(ss.VP())
    curves = ss.statistics(model, model.data(9, seed=0), rates=rates, samples=9).curves
    squares = curves.levels[:, None] ** 2
    want = squares / (model.moments.variances + squares)
    assert torch.allclose(curves.rates, want, atol=1e-9)
    assert curves.sizes.max() < 1e-9


def test_rates_are_regressions_or_mean_slopes() -> None:
    model = mixture(VE)
    by = {name: measured(model, levels=12, rates=name) for name in ("regression", "slope")}
    for i in (5, 6):  # where the data are least like Gaussian data
        level = by["slope"].levels[i].item()
        X = noised(model, level)
        z, d = split(model, X, level)
        regression = 1 - (d * z).mean(0) / z.square().mean(0)
        assert torch.allclose(by["regression"].rates[i], regression, atol=0.02)
        known, h = model.moments, 1e-5
        for axis in range(2):
            along = h * known.basis[:, axis]
            ahead, behind = (split(model, Y, level)[1][:, axis] for Y in (X + along, X - along))
            slopes = (ahead - behind) / (2 * h)
            assert by["slope"].rates[i, axis].item() == pytest.approx(
                1 - slopes.mean().item(), abs=0.02
            )
        assert (by["slope"].rates[i] - regression).abs().max() > 0.1  # they differ
        remainder = d - (1 - regression) * z
        assert torch.allclose(
            by["regression"].sizes[i], remainder.square().mean(0).sqrt(), rtol=0.03
        )


class Pulled(ss.ScoreModel):
    r"""A model that is linear with a slope of its own along each axis, whatever the data."""

    def __init__(self, slopes: Tensor, process: ss.Process) -> None:
        super().__init__()
        self.slopes, self.process, self.shape = slopes, process, slopes.shape

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.slopes * x / self.process.scales(t)[0]


@pytest.mark.parametrize("process", [VE, ss.VP(), ss.Interpolant()], ids=["EDM", "VP", "flow"])
def test_regressions_find_the_slopes_of_a_linear_model(process: ss.Process) -> None:
    slopes, stds = torch.tensor([[0.9, 0.5, -0.3, 0.5], [0.1, 30.0, 1.0, 0.2]], dtype=FLOAT)
    model = Pulled(slopes, process)
    data = stds * torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=FLOAT)
    model.moments = ss.Moments(torch.zeros(4, dtype=FLOAT), None, stds**2)
    curves = ss.statistics(model, data, levels=9, samples=60).curves
    assert torch.allclose(curves.rates, (1 - slopes).expand(9, 4))
    assert (curves.sizes / (curves.levels[:, None] + stds)).max() < 1e-6


@pytest.mark.parametrize("rates", ["regression", "slope"])
def test_the_slope_of_the_remainder_along_the_flow_is_that_of_its_size(rates: str) -> None:
    r"""The s of DPM-Solver-v3, from derivatives along paths, and its b, which is 0."""

    model = mixture(VE)
    curves = measured(model, levels=60, rates=rates)
    variances, clock, h = model.moments.coordinates, torch.tensor(0.4, dtype=FLOAT), 1e-3
    excess = curves.excess(variances)

    def remainder(X: Tensor, t: Tensor) -> Tensor:
        square = torch.exp(-2 * t)
        rate = square / (variances + square) + excess(t)
        z, d = split(model, X, torch.exp(-t).item())
        return d - (1 - rate) * z

    X = noised(model, torch.exp(-clock).item())
    moved = h * (model.denoise(X, torch.exp(-clock)) - X)
    ahead, behind = remainder(X + moved, clock + h), remainder(X - moved, clock - h)
    f, slope = remainder(X, clock), (ahead - behind) / (2 * h)
    wanted = (slope * f).mean(0) / f.square().mean(0)
    sizes = curves.log_size
    found = (sizes(clock + h) - sizes(clock - h)) / (2 * h)
    assert torch.allclose(found, wanted, atol=0.05)
    intercept = (slope - wanted * f).mean(0)
    assert (intercept / f.square().mean(0).sqrt()).abs().max() < 0.05


def test_the_measured_part_solves_its_equation() -> None:
    variances, curves = torch.tensor([0.5, 2.0], dtype=FLOAT), random_curves(12, 2)
    linear = Measured(VE, variances, curves=curves)
    assert torch.allclose(
        linear.remainder(-curves.levels.log())[0] / linear.remainder(-curves.levels.log())[1],
        curves.rates - 1,
    )
    s, t = torch.tensor([-0.5, 1.2], dtype=FLOAT)
    u = torch.linspace(-0.5, 1.2, 100_001, dtype=FLOAT)
    a, b = linear.remainder(u)
    pull = 1 + a / b  # of dz = -pull z + ..., as dz = (D - m - z) d lambda in all
    decay = torch.exp(-torch.trapezoid(pull, u, dim=0))
    assert torch.allclose(linear.decay(s, t), decay, rtol=1e-8)
    assert torch.allclose(linear.decay(t, s), 1 / decay, rtol=1e-8)
    here = torch.full_like(s, 0.3)
    assert torch.allclose(
        linear.weight(here, s, here) * linear.remainder(here)[1], torch.ones(2).double()
    )


def test_two_steps_are_those_of_dpm_solver_v3() -> None:
    r"""Its update of order 2 with l, s and b = 0, with the integrals as sums over a fine table."""

    model = mixture(VE)
    known = ss.statistics(model, model.data(500, seed=1), rates="slope")
    model.moments = known
    curves, variances = known.curves, known.coordinates
    levels = torch.tensor([20.0, 4.0, 1.0], dtype=FLOAT)
    u = torch.linspace(-levels[0].log(), -levels[-1].log(), 40_001, dtype=FLOAT)
    square = torch.exp(-2 * u)[:, None]
    l = square / (variances + square) + curves.excess(variances)(u)
    S = curves.log_size(u) - curves.log_size(u[:1])  # the integral of s
    L = torch.cat([torch.zeros(1, 2).double(), torch.cumulative_trapezoid(l, u, dim=0)])
    at = [int((u + level.log()).abs().argmin()) for level in levels]
    levels = u[at].neg().exp()
    X = levels[0] * torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=FLOAT)
    z, g = known.split(X - known.mean), []
    for k, (i, j) in enumerate(zip(at[:-1], at[1:], strict=True)):
        d = split(model, known.join(z) + known.mean, levels[k].item())[1]
        f = (1 - l[i]) * z - d  # (sigma eps - l x) / alpha
        g = [torch.exp(-S[i]) * f, *g]
        whole = torch.exp(L[i : j + 1] + S[i : j + 1])
        step = torch.trapezoid(whole, u[i : j + 1], dim=0) * g[0]
        if k:
            slope = (g[0] - g[1]) / (u[i] - u[at[0]])
            step = (
                step
                + torch.trapezoid(whole * (u[i : j + 1] - u[i])[:, None], u[i : j + 1], dim=0)
                * slope
            )
        z = torch.exp(L[i] - L[j]) * z - torch.exp(-L[j]) * step
    found = ss.decode(model, X, solver="measured_2", times=levels, denoise=False).x
    assert torch.allclose(found, known.join(z) + known.mean, atol=1e-7)


@pytest.mark.parametrize("kind", [Spline, Falling])
def test_splines_have_their_values_slopes_and_integrals(kind: type[Spline]) -> None:
    places = torch.tensor([0.0, 0.3, 1.0, 1.4, 3.0], dtype=FLOAT)
    spline = kind(places, torch.stack([2 * places**2 - places, 1 - 3 * places], dim=1))
    t = torch.linspace(0.3, 1.4, 50, dtype=FLOAT)  # between inner places, parabolas are exact
    assert torch.allclose(spline(t), torch.stack([2 * t**2 - t, 1 - 3 * t], dim=1))
    u = torch.linspace(-1.0, 4.0, 200_001, dtype=FLOAT)
    sums = torch.cumulative_trapezoid(spline(u), u, dim=0)
    found = spline.integral(u)
    assert torch.allclose((found - found[:1])[1:], sums, atol=1e-7)
    rest = 1.0 if kind is Spline else math.exp(-2)  # at a distance of 1
    assert torch.allclose(spline(u[:1])[0], rest * spline.values[0])
    assert torch.allclose(spline(u[-1:])[0], rest * spline.values[-1])


@pytest.mark.parametrize("process", [VE, ss.VP()], ids=["EDM", "VP"])
def test_levels_beyond_the_table_cost_little_accuracy(process: ss.Process) -> None:
    model = mixture(process)
    known = ss.statistics(model, model.data(500, seed=0))
    levels, errors = known.curves.levels, []
    z = process.prior_sample((8, 2), seed=0, dtype=FLOAT)
    exact = ss.decode(model, z, solver="exponential", rtol=1e-8, atol=1e-8).x
    for low, high in ((0.0, math.inf), (0.1, 2.0)):
        inside = (levels > low) & (levels < high)
        table = (getattr(known.curves, name)[inside] for name in ("levels", "rates", "sizes"))
        model.moments = replace(known, curves=ss.Curves(*table))
        x = ss.decode(model, z, solver="measured_2", steps=20, grid="tan").x
        errors.append((x - exact).square().mean().sqrt())
    assert errors[1] < 1.5 * errors[0]


@pytest.mark.parametrize("level", [0.01, 30.0])
def test_remainders_fall_at_both_ends_like_the_square_of_the_level(level: float) -> None:
    model = mixture(VE)
    sizes = measured(model, levels=60).log_size
    slope = (sizes(clock := -torch.tensor([level]).double().log()) - sizes(clock + 0.5)) / 0.5
    assert torch.allclose(slope.abs(), torch.full_like(slope, 2.0), atol=0.3)


def test_sizes_of_0_are_those_of_gaussian_data_for_which_steps_are_exact() -> None:
    model, levels = gaussian(VE), torch.logspace(2, -3, 9, dtype=FLOAT)
    squares, variances = levels[:, None] ** 2, model.moments.coordinates
    curves = ss.Curves(levels, squares / (variances + squares), torch.zeros(9, 2))
    model.moments = replace(model.moments, curves=curves)
    z = VE.prior_sample((3, 2), seed=0, dtype=FLOAT)
    exact = ss.decode(model, z, solver="moment_2", steps=1).x
    found = ss.decode(model, z, solver="measured_2", steps=3).x
    assert torch.allclose(found, exact, atol=1e-8)


def test_few_calls_are_better_spent_with_statistics() -> None:
    model = mixture(ss.VP())
    z = model.process.prior_sample((64, 2), seed=0, dtype=FLOAT)
    exact = ss.decode(model, z, solver="exponential", rtol=1e-8, atol=1e-8).x
    options = {"steps": 7, "grid": "tan"}
    errors = [
        (ss.decode(model, z, solver=name, **options).x - exact).square().mean().sqrt()
        for name in ("moment_ipndm_2", "measured_ipndm_2")
    ]
    assert errors[1] < 0.8 * errors[0]


def test_runs_with_other_statistics_share_no_coefficients() -> None:
    model = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]], dtype=FLOAT), 0.3)
    known, found = model.moments, []
    for count in (4, 5):
        model.moments = replace(known, curves=random_curves(count, 1))
        found.append(ss.sample(model, 3, solver="measured_2", steps=3, seed=0, dtype=FLOAT).x)
    _made.cache_clear()
    again = ss.sample(model, 3, solver="measured_2", steps=3, seed=0, dtype=FLOAT).x
    assert torch.equal(again, found[1])


def test_statistics_are_kept_in_files(tmp_path: Path) -> None:
    model = ss.NetworkScore(MLP(2, width=4), VE, predicts="data")
    model.shape = (2,)
    model.moments = ss.statistics(model, torch.eye(2), levels=5, samples=4)
    card = {"network": {"settings": {"size": 2, "width": 4}}}
    file = ss.save(model, tmp_path / "model", card)
    again, how = ss.load(file), {"solver": "measured_2", "steps": 4, "seed": 0}
    for name in ("levels", "rates", "sizes"):
        assert torch.equal(
            getattr(again.moments.curves, name), getattr(model.moments.curves, name)
        )
    assert torch.equal(ss.sample(again, 4, **how).x, ss.sample(model, 4, **how).x)
    tensors = tmp_path / "model.safetensors"
    some = {name: x for name, x in load_file(tensors).items() if name != "moments.sizes"}
    save_file(some, tensors)
    with pytest.raises(ValueError, match="the moments have no 'sizes'"):
        ss.load(file)


def test_wrong_statistics_are_refused() -> None:
    model = mixture(VE)
    data = model.data(8, seed=0)
    with pytest.raises(ValueError, match="rates must be 'regression' or 'slope', but is 'mean'"):
        ss.statistics(model, data, rates="mean")
    with pytest.raises(ValueError, match="samples must be at least 2, but is 1"):
        ss.statistics(model, data, samples=1)
    with pytest.raises(ValueError, match="must not be masked"):
        ss.statistics(ss.Masked(model, torch.tensor([[True, False]])), data)
    model.moments = replace(model.moments, curves=None)
    with pytest.raises(ValueError, match="set model.moments = ss.statistics"):
        ss.sample(model, 2, solver="measured_2", steps=3)
    with pytest.raises(ValueError, match="set model.moments = ss.statistics"):
        ss.compare(model, solvers=["measured_2"], budgets=[5])
    broken = ss.NetworkScore(lambda x, t: x / 0, ss.EDM(), "data")
    with pytest.raises(solvers.SolverError, match=r"output is NaN or infinite at t=80"):
        ss.statistics(broken, data, levels=2, samples=4)
    levels, ones = torch.tensor([2.0, 1.0]), torch.ones(2, 2)
    for bad, words in (
        ((levels.flip(0), ones, ones), "levels must fall"),
        ((levels - 1, ones, ones), "levels must be positive, but end at 0"),
        ((levels, ones, ones[:, :1]), r"sizes must have shape \(2, 2\), not \(2, 1\)"),
        ((levels, ones, -ones), "sizes must not be negative"),
    ):
        with pytest.raises(ValueError, match=words):
            ss.Curves(*bad)
    with pytest.raises(ValueError, match="curves must be of 2 coordinates, but are of 3"):
        replace(model.moments, curves=random_curves(4, 3))
    model.moments = replace(model.moments, curves=random_curves(4, 2))
    with pytest.raises(ValueError, match="measured_2"):
        ss.sample(model, 2, solver="measured_2", steps=3, eta=0.5)
