r"""Runs as something to iterate over, and what solvers say that they can do."""

import dataclasses

import pytest
import torch
from torch import Tensor

import solvers
from solvers import ODE, SDE, Abilities, Event, Solution, Solver, SolverError, Step, solve, steps
from solvers.methods.fixed_point import FixedPoint
from solvers.methods.interaction import Interaction
from solvers.methods.renoise import Ancestral, Churn, Recurrent
from solvers.methods.reversible import ReversibleHeun
from solvers.network_calls import count_call, counting

from .problems import PROBLEMS, problem_for, start

CASES = [
    ("euler", {}), ("heun", {}), ("unipc", {}), ("em", {"seed": 3}), ("edict", {}), ("lattice_heun", {}),
    ("rex_rk4", {}), ("torchsde/heun", {"seed": 3}), ("dopri5", {"rtol": 1e-5}), ("exponential", {"rtol": 1e-5}),
]  # fmt: skip
GRID = torch.linspace(0.3, 2.0, 12)


def equal(one: Solution, other: Solution) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in (
            (getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_steps_end_in_the_bits_of_solve_and_tell_what_callbacks_are_told(
    name: str, options: dict
) -> None:
    problem, told = problem_for(solvers.get(name)), list[Event]()
    x = torch.linspace(0.9, 1.6, 5)[:, None]
    there = solve(problem, x, GRID, name, callback=told.append, **options)
    run = steps(problem, x, GRID, name, **options)
    events = list(run)
    assert run.solution is not None
    assert equal(run.solution, there)
    assert len(events) == len(told)
    for one, other in zip(events, told, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.time, other.time)
        assert one.calls is not None
        assert other.calls is not None
        assert torch.equal(one.calls, other.calls)
        assert one.fraction == other.fraction


def test_a_step_is_taken_when_it_is_asked_for() -> None:
    seen = list[float]()

    def drift(t: Tensor, x: Tensor) -> Tensor:
        seen.append(float(t))
        return -x

    run = steps(ODE(drift), torch.ones(1, 1), torch.linspace(0, 1, 5), "euler")
    assert seen == []
    event = next(run)
    assert seen == [0.0]
    assert event.time == 0.25
    assert event.x.item() == 0.75  # (1 - 1/4)
    next(run)
    assert seen == [0.0, 0.25]
    assert run.solution is None


def test_steps_return_the_solution_where_a_generator_delegates_to_them() -> None:
    found = []

    def outer():
        found.append((yield from steps(ODE(lambda t, x: -x), torch.ones(1, 1), GRID, "heun")))

    assert len(list(outer())) == len(GRID) - 1
    assert equal(found[0], solve(ODE(lambda t, x: -x), torch.ones(1, 1), GRID, "heun"))


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if "seed" not in c[1]])
def test_a_run_is_stopped_where_it_is(name: str, options: dict) -> None:
    problem = problem_for(solvers.get(name))
    run = steps(problem, start(0.3, 2), GRID, name, **options)
    next(run)
    event = next(run)
    s = run.stop()
    assert s is run.solution
    assert s.status == ("stopped", "stopped")
    assert torch.equal(s.x, event.x)
    assert torch.equal(s.reached, event.time.expand(2))
    assert event.calls is not None
    assert torch.equal(s.calls, event.calls)
    assert list(run) == []


def test_nothing_of_a_run_is_in_force_between_its_steps() -> None:
    def drift(t: Tensor, x: Tensor) -> Tensor:
        count_call()
        return -x

    with counting() as outside:
        run = steps(ODE(drift), torch.ones(2, 1), GRID, "rk4")
        for _ in run:
            assert torch.is_grad_enabled()
            count_call()  # of another network
    assert outside.total == len(GRID) - 1
    assert run.solution is not None
    assert run.solution.calls.tolist() == [4 * (len(GRID) - 1)] * 2


def test_two_runs_take_turns() -> None:
    ends = [solve(problem_for(solvers.get(n)), start(0.3), GRID, n) for n in ("heun", "ddim")]
    runs = [steps(problem_for(solvers.get(n)), start(0.3), GRID, n) for n in ("heun", "ddim")]
    assert len(list(zip(*runs, strict=True))) == len(GRID) - 1
    for run, end in zip(runs, ends, strict=True):
        assert run.solution is not None
        assert equal(run.solution, end)


def test_gradients_flow_through_steps() -> None:
    x = torch.ones(1, 1, requires_grad=True)
    run = steps(ODE(lambda t, x: -x), x, torch.linspace(0, 1, 5), "euler", grad="backprop")
    *_, last = run
    assert torch.autograd.grad(last.x.sum(), x)[0].item() == pytest.approx(0.75**4)


def test_failures_are_raised_when_they_happen() -> None:
    broken = ODE(lambda t, x: x / (t < 0.5))
    run = steps(broken, torch.ones(1, 1), torch.linspace(0, 1, 21), "euler")
    with pytest.raises(SolverError, match="NaN or infinite"):
        list(run)
    assert run.solution is not None
    assert run.solution.status == ("nonfinite",)
    assert list(run) == []


def test_what_has_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="takes all its steps by itself"):
        steps(PROBLEMS[ODE], start(0.3), GRID, "torchdiffeq/rk4")
    borrowed = FixedPoint("back", solvers.get("torchdiffeq/rk4"))
    with pytest.raises(NotImplementedError, match="torchdiffeq/rk4 has no steps"):
        solve(PROBLEMS[ODE], start(0.3), GRID, borrowed)


@pytest.mark.parametrize("name", solvers.available())
def test_abilities_are_attributes_of_the_solver(name: str) -> None:
    solver = solvers.get(name)
    for field in dataclasses.fields(Abilities):
        assert getattr(solver, field.name) == getattr(solver.can, field.name), field.name
    assert solver.cold_order == solver.can.cold_order <= solver.can.order
    assert not hasattr(solver, "speed")


@dataclasses.dataclass(frozen=True)
class Leap(Solver):
    r"""The solver of a user: Euler's, with its abilities as a value of the class."""

    name: str = "leap"
    can = Abilities(ODE, order=1, calls_per_step=1)

    def plan(self, problem: ODE, t0: Tensor, t1: Tensor, x: Tensor) -> list[tuple]:
        return list(zip(t1 - t0, problem.at(t0, x), strict=True))

    def step(self, plan: tuple, x: Tensor, memory: None, noise: None) -> Step:
        return Step(x + plan[0] * plan[1](x))


def test_a_solver_of_ones_own_says_its_abilities_once() -> None:
    mine = Leap()
    assert mine.solves is ODE
    assert mine.order == mine.cold_order == 1
    assert not mine.stochastic
    s = solve(PROBLEMS[ODE], start(0.3), GRID, mine)
    assert torch.allclose(s.x, solve(PROBLEMS[ODE], start(0.3), GRID, "euler").x, rtol=1e-14)
    with pytest.raises(ValueError, match="SDE"):
        solve(PROBLEMS[SDE], start(0.3), GRID, mine)


def test_what_a_solver_is_made_of_keeps_its_abilities() -> None:
    lattice = ReversibleHeun("lattice", 20)
    made = Interaction("made", lattice, "noise", block=4)
    assert made.can == dataclasses.replace(
        lattice.can, solves=solvers.SemiLinear, form="noise", block=4, unstable=""
    )


@pytest.mark.parametrize("made", [FixedPoint, Ancestral, Recurrent, Churn])
def test_steps_that_know_of_others_cannot_be_taken_one_at_a_time(made: type) -> None:
    assert made("mine", solvers.get("dpm_2")).one_step
    with pytest.raises(
        ValueError, match="mine needs a one-step method, but the steps of dpmpp_2m use"
    ):
        made("mine", solvers.get("dpmpp_2m"))
