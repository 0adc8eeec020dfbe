r"""Every solver converges at its order, in both directions of time."""

import functools
import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import ODE, ExponentialMultistep, solve

from .problems import drift, exact, problem_for, ramped, start

FIXED = [name for name in solvers.available() if solvers.get(name).fixed]
ADAPTIVE = [n for n in solvers.available() if solvers.get(n).adaptive]
SPANS = [(0.3, 2.0), (2.0, 0.3)]
SLOW = {"rex_noise_euler": 0.25}
QUICK = {"foresight_2": 0.25, "moment_foresight_2": 0.25}  # where more than the last order shows


def slope(name: str, span: tuple[float, float]) -> float:
    solver, errors = solvers.get(name), []
    multistep = isinstance(solver, ExponentialMultistep)
    first = 12 if name == "dopri5" else 96 if solver.order > 4 else 64  # clear of round-off
    for steps in (first, 3 * first):
        times = ramped(*span, steps) if multistep else torch.linspace(*span, steps + 1)
        x = solve(problem_for(solver), starts(), times, solver).x
        errors.append((x - reference(span)).square().mean().sqrt().item())
    return math.log(errors[0] / errors[1]) / math.log(3)


def starts() -> Tensor:
    return torch.linspace(0.9, 1.6, 12)[:, None]  # many, so that no lucky sign decides


@functools.cache
def reference(span: tuple[float, float]) -> Tensor:
    return solve(ODE(drift), starts(), torch.tensor(span), "dopri5", rtol=1e-13, atol=1e-14).x


@pytest.mark.parametrize("span", SPANS, ids=["forward", "backward"])
@pytest.mark.parametrize("name", [n for n in FIXED if not solvers.get(n).own_noise])
def test_order_is_the_catalogues(name: str, span: tuple[float, float]) -> None:
    can = solvers.get(name).can
    multistep = isinstance(
        solvers.get(name), ExponentialMultistep
    )  # whose grid starts with short steps
    order = can.order if multistep else can.cold_order
    if can.unstable == "as the clock falls" and span[0] > span[1]:
        pytest.skip("unstable in this direction")
    found = slope(name, span)
    assert found > order - SLOW.get(name, 0.2)
    free = can.stochastic or getattr(solvers.get(name), "known_order", None)
    if not free and name != "dopri5":  # 12 of whose steps are few for its order
        assert found < order + QUICK.get(name, 0.2)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("name", [n for n in ADAPTIVE if not solvers.get(n).stochastic])
def test_error_follows_the_tolerance(name: str, tolerance: float) -> None:
    solver, end = solvers.get(name), torch.tensor(2.0)
    s = solve(
        problem_for(solver),
        start(0.3),
        torch.tensor([0.3, 2.0]),
        solver,
        rtol=tolerance,
        atol=tolerance,
    )
    assert (s.x - exact(end)).abs().item() < 30 * tolerance


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "exponential", "torchdiffeq/dopri5"])
def test_path_between_steps_is_as_good_as_the_steps(name: str) -> None:
    times = torch.linspace(0.3, 2.0, 41)
    s = solve(
        problem_for(solvers.get(name)), start(0.3), times, name, rtol=1e-7, atol=1e-7, path=True
    )
    assert s.path is not None
    assert (s.path[:, 0, 0] - exact(times)).abs().max() < 3e-6
