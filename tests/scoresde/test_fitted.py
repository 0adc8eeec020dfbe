"""The adaptive solver whose linear part is fitted to each sample."""

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.reverse.linear_part import Frame
from solvers.methods.fitted import _advanced, _Fit

from .cases import mixture

FINE = {"solver": "exponential_fitted", "rtol": 1e-6, "atol": 1e-6}
CASES = [(0.0, 1.0), (3.0, 0.02), (-1.0, 8.0)]


def gaussian(centre: float, std: float, process: ss.Process) -> ss.GaussianOracle:
    mean, covariance = torch.full((3,), centre), std**2 * torch.eye(3)
    return ss.GaussianOracle(mean.double(), covariance.double(), process)


def on_path(process: ss.Process, centre: float, std: float, t: float, q: Tensor) -> Tensor:
    alpha, sigma = process.scales(torch.tensor(t, dtype=torch.float64))
    return alpha * centre + (alpha**2 * std**2 + sigma**2).sqrt() * q


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize(("centre", "std"), CASES)
def test_a_gaussian_of_any_centre_and_width_takes_few_steps(
    process: ss.Process, centre: float, std: float
) -> None:
    model, stop = gaussian(centre, std, process), process.start_of("encoding")
    q = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there, here = (on_path(process, centre, std, t, q) for t in (process.t_max, stop))
    down = ss.decode(model, there, t_min=stop, denoise=False, **FINE)
    up = ss.encode(model, here, t_min=stop, **FINE)
    assert (down.x - here).abs().max() < 1e-5
    assert (up.x / there - 1).abs().max() < 1e-3
    plain = ss.decode(model, there, t_min=stop, denoise=False, **{**FINE, "solver": "exponential"})
    assert int(down.calls.max()) <= 18
    assert int(up.calls.max()) <= 18
    assert int(down.calls.max()) <= int(plain.calls.max()) + 1


@pytest.mark.parametrize(("s", "t"), [(-2.0, 1.0), (0.3, 0.2)])
def test_the_fit_is_the_variance_of_the_path(s: float, t: float) -> None:
    variances = torch.tensor([0.0, 1e-4, 0.3, 50.0], dtype=torch.float64)
    ends = torch.tensor([s, t], dtype=torch.float64).repeat(4, 1)
    level = torch.exp(-2 * ends)  # x - D = (x - c) s^2 / (l + s^2), and x - c grows with its root
    pull = level / (variances[:, None] + level).sqrt()
    frame = Frame(ss.EDM(), torch.ones(1, dtype=torch.float64))
    found = frame.fit(ends[:, 0], ends[:, 1], pull[:, 1] / pull[:, 0])
    torch.testing.assert_close(found, variances, rtol=1e-8, atol=1e-10)


def test_pulls_that_no_gaussian_has_are_given_the_nearest_one() -> None:
    frame = Frame(ss.EDM(), torch.ones(1, dtype=torch.float64))
    s, t = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    level = torch.exp(-t)
    least, most = frame.fit(s, t, torch.stack([1.1 * level[0], 0.9 * level[1] ** 2]))
    assert float(least) == 0
    assert float(most) > 1e3


def test_every_member_states_the_same_equation() -> None:
    torch.manual_seed(0)
    x, y, c = torch.randn(3, 5, dtype=torch.float64)
    t = torch.linspace(-2, 3, 5, dtype=torch.float64)[None, :, None]
    frame = Frame(ss.EDM(), torch.ones(1, dtype=torch.float64))
    rates = []
    for variance in (0.0, 0.2, 9.0):
        own = frame.member(torch.full((5,), variance, dtype=torch.float64))
        a, b = (f[0, :, 0, 0] for f in own.remainder(t))
        level = torch.exp(-2 * t[0, :, 0])
        weight = own.weight(t, t, t)[0, :, 0, 0]
        pull = -level / (variance + level) * (x - c)
        rates.append(pull + weight * (a * (x - c) + b * (y - c)))
    for rate in rates:
        torch.testing.assert_close(rate, y - x, rtol=1e-10, atol=1e-12)


def test_a_mixture_takes_fewer_calls_for_less_error() -> None:
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(10, 16, generator=draw, dtype=torch.float64)
    model = ss.MixtureOracle(means, 0.2)
    z, options = _start(model, 16), {"t_min": 0.002, "denoise": False}
    want = ss.decode(model, z, solver="exponential", rtol=1e-9, atol=1e-9, **options).x
    for tolerance in (1e-3, 1e-5):
        same = {"rtol": tolerance, "atol": tolerance, **options}
        runs = [
            ss.decode(model, z, solver=name, **same)
            for name in ("exponential", "exponential_fitted")
        ]
        plain, fitted = ((run.x - want).square().mean(1).sqrt().median() for run in runs)
        assert fitted < min(tolerance, plain)
        assert runs[1].calls.sum() < 0.95 * runs[0].calls.sum()


def test_the_path_between_steps_is_as_accurate() -> None:
    model = mixture(ss.VP())
    z, times = _start(model, 4), torch.linspace(1.0, 1e-3, 30, dtype=torch.float64)
    paths = [
        ss.decode(
            model, z, solver=name, times=times, path=True, denoise=False, rtol=1e-7, atol=1e-7
        )
        for name in ("exponential_fitted", "dopri5")
    ]
    assert (paths[0].path - paths[1].path).abs().max() < 1e-5


def test_states_far_from_the_centre_keep_the_digits_of_float32() -> None:
    model = gaussian(0.0, 30.0, ss.EDM())
    x = torch.tensor([[30.0, -10.0, 20.0]])
    z = ss.encode(model.float(), x, t_min=0.002, **{**FINE, "rtol": 1e-4, "atol": 1e-4})
    want = x.double() * ((900 + 80.0**2) / (900 + 0.002**2)) ** 0.5
    assert (z.x / want - 1).abs().max() < 1e-3


@pytest.mark.parametrize("parent", [solvers.AdaptiveAdams, solvers.FittedAdams])
def test_states_inside_a_step_lead_to_its_end_and_its_order_rises_by_one(
    parent: type[solvers.AdaptiveAdams],
) -> None:
    seen: list[int] = []

    class Watched(parent):  # type: ignore[misc, valid-type]
        def step(self, plan, x, memory, noise):  # type: ignore[no-untyped-def]
            done = super().step(plan, x, memory, noise)
            assert done.interpolate is not None
            for part, state in ((0.0, x), (1.0, done.x)):
                theta = torch.full((len(x), 1), part, dtype=x.dtype)
                inside = done.interpolate(theta, torch.arange(len(x)))
                torch.testing.assert_close(inside, state, rtol=1e-9, atol=1e-9)
            return done

        def choose(self, memory, order):  # type: ignore[no-untyped-def]
            chosen = super().choose(memory, order)
            seen.append(int((chosen.order - memory.order).max()))
            assert bool((chosen.order <= chosen.known).all())
            return chosen

    model = mixture(ss.VP())
    ss.decode(model, _start(model, 3), solver=Watched(), rtol=1e-4, atol=1e-4)
    assert max(seen) == 1


def test_a_step_from_a_corrected_state_solves_the_linear_part_exactly() -> None:
    x, state, centre = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).double()
    frame = Frame(ss.EDM(), torch.ones(1, dtype=torch.float64))
    variances, s, t = torch.tensor([[0.1, 3.0], [-1.0, -0.5], [0.3, 0.2]], dtype=torch.float64)
    fit = _Fit(frame.member(variances), state, state - centre, torch.zeros(2, 3, 4).double())
    found = _advanced(
        fit, s, t, x, torch.ones(2, 4).double(), torch.tensor([2, 2]), fit.differences
    )
    size = [(variances + torch.exp(-2 * u)).sqrt()[:, None] for u in (s, t)]
    torch.testing.assert_close(found, centre + size[1] / size[0] * (x - centre))


def test_without_a_family_it_is_the_method_of_one_linear_part() -> None:
    linear = solvers.SemiLinear(lambda t, x: torch.cos(3 * t) * x, solvers.ConstantRate(-1.0))
    x, times = torch.ones(2, 2, dtype=torch.float64), torch.tensor([0.0, 2.0]).double()
    fine = {"rtol": 1e-8, "atol": 1e-8}
    one = solvers.solve(linear, x, times, "exponential_fitted", **fine)
    exact = torch.exp(torch.sin(3 * times[1]) / 3 - times[1])  # of x' = (cos 3t - 1) x
    torch.testing.assert_close(one.x, exact * x, rtol=1e-6, atol=1e-8)


def test_it_takes_no_noise() -> None:
    with pytest.raises(ValueError, match="stochastic=True is not for a fitted linear part"):
        solvers.FittedAdams(stochastic=True)
    for highest in (0, -1, 2.5, 100):
        with pytest.raises(ValueError, match=r"highest of .* must be a whole number in \[1, 20\]"):
            solvers.FittedAdams(highest=highest)


def _start(model: ss.Oracle, count: int) -> Tensor:
    return model.process.prior_sample((count, *model.shape), seed=0, dtype=torch.float64)
