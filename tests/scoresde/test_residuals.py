r"""Residuals against closed forms: exact models, and linear fields that satisfy one equation of three."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.checking.continuation import continued, squared
from scoresde.checking.levels import noise_of
from scoresde.checking.residual_table import Squared
from scoresde.checking.terms import terms
from solvers.divergence import signs

TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
Matrix = Callable[[Tensor], Tensor]


class Linear(ss.ScoreModel):
    r"""A model with the score B(u) X at the squared noise level u of all rows, right or wrong."""

    def __init__(self, matrix: Matrix, process: ss.Process | None = None) -> None:
        super().__init__()
        self.matrix, self.process, self.shape = matrix, process or ss.EDM(), (2,)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.process.scales(t.expand(len(x)))
        u, X = (sigma[0] / alpha[0]) ** 2, x / alpha[:, None].to(x)
        return X + u * X @ self.matrix(u).T


def drifting(u: Tensor) -> Tensor:
    r"""That of normal data whose variance is 1 + u / 4, so not the same at all noise levels."""

    return -EYE / (u + 1 + u / 4)


def martingale_only(u: Tensor) -> Tensor:
    return -torch.linalg.inv((u + 1) * EYE + 0.5 * TURN)


def flow_only(u: Tensor) -> Tensor:
    return -(EYE + 0.5 * TURN) / (u + 1)


def fokker_planck_only(u: Tensor) -> Tensor:
    return 0.1 * (torch.tan(0.1 * (u - 8.0)) * EYE + TURN)


def missed(matrix: Matrix, u: float) -> dict[str, Tensor]:
    r"""The residuals as matrices, by differentiating B."""

    at = torch.tensor(u, dtype=torch.float64)
    B, slope = matrix(at), torch.func.jvp(matrix, (at,), (torch.ones_like(at),))[1]
    gaps = {
        "martingale": slope - B @ B,
        "flow": slope - (B + B.T) @ B / 2,
        "fokker_planck": slope - B.T @ B,
    }
    return {name: -2 * u**2 * gap for name, gap in gaps.items()}


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)).double()


EXACT = {
    "gaussian": lambda process: ss.GaussianOracle(
        torch.tensor([1.0, -1.0]).double(),
        torch.tensor([[1.0, 0.6], [0.6, 0.5]]).double(),
        process,
    ),
    "mixture": lambda process: ss.MixtureOracle(normal(3), 0.4, process=process),
}


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP(), ss.Interpolant()], ids=type)
@pytest.mark.parametrize("name", EXACT)
def test_exact_scores_have_none(name: str, process: ss.Process) -> None:
    model = EXACT[name](process)
    found = ss.residuals(model, model.data(50), levels=[0.2, 1.0, 5.0])
    for level in found.levels:
        assert level.change.root > 1e-2
        for one in (level.martingale, level.flow, level.fokker_planck, level.curl):
            assert one.root < 1e-7 * max(1.0, level.noise_level**2)
        assert abs(level.continued.mean) < 4 * level.continued.stderr + 1e-12


def test_they_do_not_tell_wrong_data_that_is_the_same_at_all_levels() -> None:
    wrong = ss.GaussianOracle(torch.zeros(2).double(), 3.0)
    [level] = ss.residuals(wrong, normal(20), levels=[0.7]).levels
    assert max(level.martingale.root, level.flow.root, level.fokker_planck.root) < 1e-9


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()], ids=type)
@pytest.mark.parametrize("matrix", [drifting, martingale_only, flow_only, fokker_planck_only])
def test_linear_fields_have_the_known_ones(matrix: Matrix, process: ss.Process) -> None:
    data, levels = normal(20), [0.5, 1.5]
    found = ss.residuals(Linear(matrix, process), data, levels=levels)
    for number, (u, level) in enumerate(zip((0.25, 2.25), found.levels, strict=True)):
        X = data + math.sqrt(u) * noise_of(data, 0, number)
        for name, gap in missed(matrix, u).items():
            want = (X @ gap.T).square().mean().sqrt()
            assert getattr(level, name).root == pytest.approx(float(want), rel=1e-6, abs=1e-8)
        gaps = missed(matrix, u)
        curl = (X @ (gaps["martingale"] - gaps["fokker_planck"]).T).square().mean().sqrt()
        assert level.curl.root == pytest.approx(float(curl), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("only", ["martingale", "flow", "fokker_planck"])
def test_each_holds_alone_for_some_field(only: str) -> None:
    matrix = globals()[f"{only}_only"]
    for name, gap in missed(matrix, 1.0).items():
        assert bool(gap.norm() < 1e-12) == (name == only)


class Twisted(torch.nn.Module):
    r"""A network that is no gradient."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.first = torch.nn.Parameter(torch.randn(3, 6, generator=draw).double())
        self.last = torch.nn.Parameter(torch.randn(6, 2, generator=draw).double())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        seen = torch.cat([x, t.log()[:, None]], 1)
        return torch.tanh(seen @ self.first) @ self.last


def twisted() -> ss.NetworkScore:
    return ss.NetworkScore(Twisted(), ss.EDM(), "data", shape=(2,))


def whole(network: torch.nn.Module, at: Tensor, clock: Tensor) -> dict[str, Tensor]:
    r"""The residuals at a point, from Jacobians and Hessians."""

    def D(X: Tensor, clock: Tensor) -> Tensor:
        return network(X[None], torch.exp(-clock)[None])[0]

    auto = torch.autograd.functional
    J = auto.jacobian(lambda x: D(x, clock), at)
    second = torch.stack([auto.hessian(lambda x, i=i: D(x, clock)[i], at) for i in range(2)])
    change = auto.jacobian(lambda c: D(at, c), clock)
    v, square = D(at, clock) - at, torch.exp(-2 * clock)
    slope = square * torch.einsum("iik->k", second)
    laplacian = square * second.diagonal(dim1=1, dim2=2).sum(1)
    return {
        "martingale": change + 2 * J @ v + laplacian,
        "flow": change + (J + J.T) @ v + slope,
        "fokker_planck": change + 2 * J.T @ v + slope,
    }


def test_terms_are_those_of_whole_jacobians() -> None:
    model, X = twisted(), normal(3)
    log_snr = torch.tensor([0.5, -0.3, 1.0]).double()

    with torch.no_grad():
        found = terms(model, X, log_snr, None, {})
    for row in range(3):
        for name, value in whole(model.network, X[row], log_snr[row]).items():
            assert torch.allclose(getattr(found, name)[0, row], value, atol=1e-8)
    assert torch.allclose(found.curl, found.martingale - found.fokker_planck)
    assert float(found.curl.abs().min()) > 1e-3


def test_probes_agree_with_exact_sums() -> None:
    model, X = twisted(), torch.tensor([[0.2, 0.9]]).double().repeat(4000, 1)
    log_snr = torch.full((len(X),), -0.7, dtype=torch.float64)
    with torch.no_grad():
        exact = terms(model, X[:1], log_snr[:1], None, {})
        probes = signs(5, torch.arange(len(X)), 0, 2, 2).reshape(2, -1, 2)
        drawn = terms(model, X, log_snr, probes, {})
    for name in ("martingale", "flow", "fokker_planck"):
        draws, want = getattr(drawn, name), getattr(exact, name)[0, 0]
        error = draws.mean(0).std(0) / len(X) ** 0.5
        assert bool(((draws.mean((0, 1)) - want).abs() < 4 * error + 1e-9).all())
        squares = squared(draws)
        noise = squares.std() / len(X) ** 0.5
        assert (squares.mean() - want.square().mean()).abs() < 4 * noise
        biased = draws.mean(0).square().mean()
        assert biased - want.square().mean() > 8 * noise


def test_squares_of_noisy_draws_are_unbiased() -> None:
    mean = torch.tensor([0.3, -0.2]).double()
    draws = mean + torch.randn(3, 20_000, 2, generator=torch.Generator().manual_seed(1)).double()
    found = squared(draws)
    assert abs(found.mean() - mean.square().mean()) < 4 * found.std() / 20_000**0.5
    assert torch.equal(squared(draws[:1]), draws[0].square().mean(1))


def test_continuations_of_linear_fields_are_of_second_order() -> None:
    r"""The mean of the reverse SDE is known, and noise of both signs cancels exactly."""

    model, X, start = Linear(drifting), normal(2), 0.2
    log_snr = torch.full((2,), start, dtype=torch.float64)

    def gain(clock: Tensor) -> Tensor:
        u = torch.exp(-2 * clock)
        return 1 - u / (1.25 * u + 1)

    errors = []
    for step in (0.1, 0.05, 0.025):
        clock = torch.linspace(start, start + step, 2001, dtype=torch.float64)
        kept = torch.exp(torch.trapezoid(2 * (gain(clock) - 1), clock))
        want = (gain(clock[-1]) * kept - gain(clock[0])) / step * X
        z = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0)).double()
        with torch.no_grad():
            found = continued(model, X, log_snr, z, {}, step)
        assert torch.allclose(found[0], found[1])
        errors.append(float((found[0] - want).norm()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.05)


def test_continuations_agree_with_derivatives() -> None:
    model = twisted()
    [level] = ss.residuals(model, normal(1500), levels=[1.0], step=0.02).levels
    gap = abs(level.continued.mean - level.martingale.mean)
    assert gap < 4 * level.continued.stderr + 0.03 * level.martingale.mean
    assert level.martingale.mean > 10 * level.continued.stderr


def test_rows_do_not_depend_on_their_batch() -> None:
    data, few = normal(10), {"levels": [0.5], "probes": 2, "seed": 3}
    [whole] = ss.residuals(twisted(), data, **few).levels
    [parts] = ss.residuals(twisted(), data, **few, batch_size=4).levels
    for name in ("martingale", "flow", "fokker_planck", "continued"):
        assert getattr(parts, name).mean == pytest.approx(getattr(whole, name).mean, rel=1e-9)
    labelled = ss.MixtureOracle(normal(2), 0.4)
    label = torch.arange(10) % 2
    [own] = ss.residuals(labelled, data, **few, batch_size=3, label=label).levels
    assert own.martingale.root < 1e-8
    [short] = ss.residuals(labelled, data, levels=[0.5], derivatives=False).levels
    assert short.martingale is None


def test_results_are_tables_and_pictures(tmp_path: Path) -> None:
    found = ss.residuals(twisted(), normal(20))
    assert [row["noise level"] for row in found.entries] == [
        f"{level.noise_level:.3g}" for level in found.levels
    ]
    assert "Fokker-Planck" in str(found)
    assert found.table().row_count == len(found.levels)
    assert found.plot(tmp_path / "residuals.png").exists()
    bare = ss.residuals(twisted(), normal(20), levels=[1.0], derivatives=False)
    with pytest.raises(ValueError, match="leave out derivatives=False"):
        bare.plot(tmp_path / "none.png")


def test_bad_input_is_named() -> None:
    model, data = twisted(), normal(4)
    with pytest.raises(ValueError, match=r"levels must lie from .* but one is 1000"):
        ss.residuals(model, data, levels=[1000.0])
    with pytest.raises(ValueError, match="probes"):
        ss.residuals(model, data, probes=1)
    with pytest.raises(ValueError, match="step"):
        ss.residuals(model, data, step=0.0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        ss.residuals(model, data[:1])
    with pytest.raises(ValueError, match="data must vary"):
        ss.residuals(model, torch.ones(4, 2))
    with pytest.raises(ValueError, match="residuals need noise levels"):
        ss.residuals(
            ss.NetworkScore(lambda x, t: -x, ss.NonlinearProcess(lambda x, t: -x, 1.0), "score"),
            data,
        )
    flow = ss.NetworkScore(Twisted(), ss.EDM(), "data", shape=(2,), learned="flow")
    with pytest.raises(
        ValueError, match="residuals has no meaning for a model with learned='flow'"
    ):
        ss.residuals(flow, data)
    rounded = ss.NetworkScore(lambda x, t: x.detach().tanh(), ss.EDM(), "data", shape=(2,))
    with pytest.raises(ValueError, match="derivative"):
        ss.residuals(rounded, data)


def test_continuations_have_a_bias_of_second_order() -> None:
    r"""The mean over noise is that of Gauss and Hermite's rule; the estimates of an exact model do not drift."""

    model = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]).double(), 0.4)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(40))
    X = torch.linspace(-1.5, 1.5, 10, dtype=torch.float64)[:, None]
    log_snr, z = torch.zeros(10, dtype=torch.float64), nodes[:, None, None].expand(40, 10, 1)
    share = (weights / weights.sum())[:, None, None]
    drift = [(share * continued(model, X, log_snr, z, {}, h)).sum(0).norm() for h in (0.1, 0.05)]
    assert 3.4 < float(drift[0] / drift[1]) < 4.6


def test_roots_have_the_errors_of_their_squares() -> None:
    r"""By d root = d mean / (2 root), and the root of two standard errors where the mean is not told from 0."""

    assert str(Squared(4.0, 0.4)) == "2 ± 0.1"
    assert str(Squared(-1.0, 0.02)) == "< 0.2"


def test_levels_within_a_step_of_the_domain_are_refused() -> None:
    model = ss.GaussianOracle(torch.zeros(2), 0.5)
    low = model.process.noise_level(model.process.t_min)
    with pytest.raises(ValueError, match="inside the domain of .* by a step, but one is"):
        ss.residuals(model, model.data(4), levels=[low * math.exp(0.05)], step=0.1)
