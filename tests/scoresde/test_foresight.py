r"""Methods that look ahead: their middle, their prediction, and PFDiff's formula in the noise form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.reverse.linear_part import Frame
from scoresde.runs.grids import grid_times
from solvers import ODE, ConstantRate, SemiLinear
from solvers.methods.weights import quadrature

from .cases import MEANS, PROCESSES, mixture

VARIANCES = {"data": 0.0, "isotropic": 0.7, "noise": math.inf}
LEVELS = [80.0, 9.0, 2.0, 0.7, 0.1]
levels = st.floats(-3.0, 4.0)


def weight_over(frame: Frame, s: Tensor, t: Tensor, end: Tensor) -> Tensor:
    r"""The weight of N between two times, in a step that ends later."""

    points, gauss = quadrature(frame, s, t, frame.decay(s, t))
    return ((t - s) * gauss @ frame.weight(s + (t - s) * points, s, t)) * frame.decay(t, end)


@settings(max_examples=20)
@given(start=levels, h=st.floats(0.05, 2.0))
@pytest.mark.parametrize("form", VARIANCES)
def test_half_of_the_weight_has_passed_in_the_middle(form: str, start: float, h: float) -> None:
    frame = Frame(ss.EDM(), torch.tensor([VARIANCES[form]], dtype=torch.float64))
    s, t = torch.tensor([start, start + h], dtype=torch.float64)
    middle = frame.middle(s, t)
    first, second = weight_over(frame, s, middle, t), weight_over(frame, middle, t, t)
    assert torch.allclose(first, second, rtol=1e-8)
    assert torch.allclose(middle, frame.middle(t, s))


def test_middles_are_the_levels_between_those_of_the_grid_tan() -> None:
    oracle = mixture(ss.EDM())
    scale = oracle.data_std
    assert scale is not None
    fine = ss.EDM().log_snr(grid_times(ss.EDM(), "tan", 80.0, 0.01, 8, scale))
    frame = Frame(ss.EDM(), torch.tensor([scale**2], dtype=torch.float64))
    assert torch.allclose(frame.middle(fine[:-1:2], fine[2::2]), fine[1::2])


@pytest.mark.parametrize("process", ["EDM", "VP", "Interpolant"])
def test_one_value_in_the_noise_form_is_pfdiff(process: str) -> None:
    # algorithm 1 with DDIM, k = h = 1: x' = x + (s' - s) e of x / alpha, with the last e and with the one ahead
    oracle = mixture(PROCESSES[process])
    at, scale = [min(LEVELS[0], 0.9 * level_of(oracle)), *LEVELS[1:]], oracle.data_std
    assert scale is not None
    z = at[0] * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def noise(x: Tensor, level: float) -> Tensor:
        t = oracle.process.at_noise_level(level)
        alpha = float(oracle.process.scales(torch.tensor(t, dtype=torch.float64))[0])
        return (x - oracle.denoise(alpha * x, t)) / level

    x, e = z, at[0] * z / (scale**2 + at[0] ** 2)  # of Gaussian data
    for s, after in zip(at, at[1:], strict=False):
        ahead = (s + after) / 2
        e = noise(x + (ahead - s) * e, ahead)
        x = x + (after - s) * e
    first, last = (
        float(
            oracle.process.scales(torch.tensor(oracle.process.at_noise_level(level)).double())[0]
        )
        for level in (at[0], at[-1])
    )
    solver = solvers.Foresight("pfdiff", 1, "noise")
    found = ss.decode(oracle, first * z, solver=solver, levels=at, denoise=False)
    assert torch.allclose(found.x, last * x, rtol=1e-8)
    assert found.calls.tolist() == [len(at) - 1] * 5


def level_of(oracle: ss.ScoreModel) -> float:
    return oracle.process.noise_level(oracle.process.t_max)


@pytest.mark.parametrize("values", [1, 2])
def test_moments_of_one_variance_are_the_scale_of_the_data(values: int) -> None:
    oracle = mixture(ss.VP())
    assert oracle.data_std is not None
    oracle.moments = ss.Moments(torch.zeros(2), None, torch.full((2,), oracle.data_std**2))
    names = (f"foresight_{values}", f"moment_foresight_{values}")
    runs = [ss.sample(oracle, 3, solver=name, steps=6, grid="tan").x for name in names]
    assert torch.allclose(*runs, atol=1e-9)


@pytest.mark.parametrize("values", [2, 3])
def test_the_network_is_asked_where_a_polynomial_leads(values: int) -> None:
    # N is a polynomial of the clock alone, so that its past values predict the middle exactly
    asked: list[Tensor] = []

    def N(t: Tensor, x: Tensor) -> Tensor:
        return (1 + 2 * t) ** (values - 1) + 0 * x

    def told(t: Tensor, x: Tensor) -> Tensor:
        asked.append(x.clone())
        return N(t, x)

    problem, flow = SemiLinear(told, ConstantRate(-1.0)), ODE(lambda t, x: N(t, x) - x)
    times = torch.tensor([0.0, 0.3, 0.9, 1.3, 1.6, 2.0], dtype=torch.float64)
    solver = solvers.Foresight("mine", values)
    x = torch.ones(1, 1, dtype=torch.float64)
    path = solvers.solve(problem, x, times, solver, path=True).path
    assert path is not None
    for i in range(values, 5):
        m = (times[i] + times[i + 1]) / 2
        way = torch.stack([times[i], m])
        end = solvers.solve(flow, path[i], way, "dopri5", rtol=1e-12, atol=1e-12)
        assert torch.allclose(asked[i], end.x, atol=1e-10)


def test_order_is_2_with_three_values_too() -> None:
    oracle = ss.MixtureOracle(MEANS, 0.5, process=ss.EDM())
    z = 5 * torch.randn(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    options = {"t_max": 5.0, "t_min": 0.2, "grid": "log_snr", "denoise": False}
    truth = ss.decode(oracle, z, solver="unipc_3", steps=600, **options).x
    solver, errors = solvers.Foresight("mine", 3, "isotropic"), []
    for steps in (50, 100):
        x = ss.decode(oracle, z, solver=solver, steps=steps, **options).x
        errors.append((x - truth).square().mean().sqrt())
    assert math.log2(errors[0] / errors[1]) > 1.85


def test_what_it_refuses() -> None:
    with pytest.raises(
        ValueError, match=r"values of mine must be a whole number in \[1, 4\], but is 5"
    ):
        solvers.Foresight("mine", 5)
    with pytest.raises(ValueError, match="values of mine must be a whole number .*, but is 2.5"):
        solvers.Foresight("mine", 2.5)
    with pytest.raises(TypeError, match="values of mine must be a number, but is '2'"):
        solvers.Foresight("mine", "2")
    with pytest.raises(ValueError, match="form must be one of 'data', .*, but is 'momets'"):
        ss.sample(mixture(ss.EDM()), 2, solver=solvers.Foresight("mine", form="momets"), steps=3)
    with pytest.raises(ValueError, match="eta=1.0 has no effect on foresight_1"):
        ss.sample(mixture(ss.EDM()), 2, solver="foresight_1", steps=3, eta=1.0)
