r"""Every solver converges at its order, in both directions of time."""

import math

import pytest
import torch

import solvers
from solvers import ExponentialMultistep, SemiLinear, solve

from .problems import exact, force, problem_for, start

FIXED = [name for name in solvers.available() if solvers.get(name).fixed]
ADAPTIVE = [name for name in solvers.available() if solvers.get(name).adaptive]
SPANS = [(0.3, 2.0), (2.0, 0.3)]
# Methods for noise converge faster without it, which is what is seen here.
WITHOUT_NOISE = {
    "torchsde/srk": 2,
    "torchsde/midpoint": 2,
    "torchsde/heun": 2,
    "torchsde/log_ode": 2,
    "torchsde/reversible_heun": 2,
}


SLACK = {"torchdiffeq/fehlberg2": 200}  # whose error estimate is known to be lenient
LUCKY = ("dopri5", "adams")  # whose errors reach round-off or their own tolerance too soon


def slope(name: str, span: tuple[float, float]) -> float:
    solver, errors = solvers.get(name), []
    for steps in (16, 64):
        times = torch.linspace(*span, steps + 1)
        x = solve(problem_for(solver), start(span[0]), times, solver).x
        errors.append((x - exact(times[-1])).abs().item())
    return math.log2(errors[0] / errors[1]) / 2


@pytest.mark.parametrize("span", SPANS, ids=["forward", "backward"])
@pytest.mark.parametrize("name", [name for name in FIXED if name != "exponential_3"])
def test_order_is_the_catalogues(name: str, span: tuple[float, float]) -> None:
    order = WITHOUT_NOISE.get(name, solvers.get(name).order)
    found = slope(name, span)
    assert found > order - 0.25
    if not any(lucky in name for lucky in LUCKY):
        assert found < order + 0.3


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("span", SPANS, ids=["forward", "backward"])
def test_exponential_adams_from_exact_history(order: int, span: tuple[float, float]) -> None:
    # from its own first steps the global order is capped at 2, so the history is given
    solver, problem, errors = ExponentialMultistep("adams", order), problem_for_exponential(), []
    for steps in (64, 256):
        times = torch.linspace(*span, steps + 1)
        x, memory = start(span[0]), ()
        for k in range(order - 1, 0, -1):
            t = times[0] - k * (times[1] - times[0])
            memory = (problem.drift(t, exact(t).reshape(1, 1)), *memory)
        past = times[0] - (times[1] - times[0]) * torch.arange(order - 1, 0, -1)
        grid = torch.cat([past, times])
        plan = solver.plan(problem, grid[:-1], grid[1:], x)[order - 1 :]
        for step in plan:
            x, memory = solver.step(step, x, memory, None)[:2]
        errors.append((x - exact(times[-1])).abs().item())
    assert abs(math.log2(errors[0] / errors[1]) / 2 - order) < 0.3


def problem_for_exponential() -> SemiLinear:
    return SemiLinear(force, -1.0)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("name", ADAPTIVE)
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
    assert (s.x - exact(end)).abs().item() < SLACK.get(name, 30) * tolerance


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "torchdiffeq/dopri5"])
def test_path_between_steps_is_as_good_as_the_steps(name: str) -> None:
    times = torch.linspace(0.3, 2.0, 41)
    s = solve(
        problem_for(solvers.get(name)), start(0.3), times, name, rtol=1e-7, atol=1e-7, path=True
    )
    assert s.path is not None
    assert (s.path[:, 0, 0] - exact(times)).abs().max() < 3e-6
