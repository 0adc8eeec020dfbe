r"""Runs that can be undone: to round-off, or to the last bit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import solvers
from solvers import ODE, solve
from solvers.catalogue import INVERTIBLE
from solvers.methods.reversible import McCallumFoster, ReversibleHeun
from solvers.methods.runge_kutta import TABLEAUS

from .problems import drift, problem_for, ramped, start

REVERSIBLE = [str(s) for s in INVERTIBLE if s.reversible]
SPANS = {"rising": (0.3, 2.0), "falling": (2.0, 0.3)}


def starts(rows: int = 5) -> Tensor:
    return torch.linspace(0.9, 1.6, 3 * rows, dtype=torch.float64).reshape(rows, 3)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("name", REVERSIBLE)
def test_a_run_is_undone_from_its_companion(name: str, span: str) -> None:
    solver = solvers.get(name)
    times = ramped(*SPANS[span], 10)[8:]  # steps of unlike sizes
    there = solve(problem_for(solver), starts(), times, solver)
    back = solve(problem_for(solver), there.x, times.flip(0), solver, companion=there.companion)
    tolerance = 1e-6 if name in ("bdia", "edict") else 1e-9  # which amplify round-off one way
    assert (back.x - starts()).abs().max() < tolerance
    assert (there.x - starts()).abs().max() > 0.1


@pytest.mark.parametrize("span", SPANS)
def test_a_lattice_is_undone_to_the_last_bit(span: str) -> None:
    method, times = ReversibleHeun(bits=34), ramped(*SPANS[span], 40)
    x = torch.round(starts() * 2.0**34) * 2.0**-34
    there = solve(ODE(drift), x, times, method)
    back = solve(ODE(drift), there.x, times.flip(0), method, companion=there.companion)
    assert torch.equal(back.x, x)
    assert torch.equal(back.companion[:, 0], back.companion[:, 0].mul(2.0**34).round() * 2.0**-34)
    floats = replace(method, bits=None)
    there = solve(ODE(drift), x, times, floats)
    back = solve(ODE(drift), there.x, times.flip(0), floats, companion=there.companion)
    assert not torch.equal(back.x, x)  # so the lattice is what does it


def test_a_lattice_refuses_numbers_beyond_its_range() -> None:
    far = ODE(lambda t, x: 1e6 * torch.ones_like(x))
    with pytest.raises(solvers.SolverError, match="NaN or infinite"):
        solve(far, starts(), torch.linspace(0, 1, 9), ReversibleHeun(bits=34))


@pytest.mark.parametrize("coupling", [0.9, 1.0])
def test_mccallum_and_foster_keep_the_order_of_their_method(coupling: float) -> None:
    rk4 = next(tableau for tableau in TABLEAUS if tableau.name == "rk4")
    method = McCallumFoster("mf", rk4, coupling)
    exact = solve(ODE(drift), starts(), torch.tensor([0.3, 2.0]), "dopri5", rtol=1e-13, atol=1e-13)
    errors = []
    for steps in (10, 30):
        found = solve(ODE(drift), starts(), torch.linspace(0.3, 2.0, steps + 1), method)
        errors.append((found.x - exact.x).abs().max().item())
    assert errors[0] > 3**3.8 * errors[1]


def test_a_companion_of_other_states_is_refused() -> None:
    times = torch.linspace(0.3, 2.0, 9)
    there = solve(ODE(drift), starts(), times, "reversible_heun")
    with pytest.raises(ValueError, match="not the final state of the run"):
        solve(
            ODE(drift), there.x + 0.1, times.flip(0), "reversible_heun", companion=there.companion
        )
    with pytest.raises(ValueError, match="not reversible"):
        solve(ODE(drift), there.x, times.flip(0), "heun", companion=there.companion)


def test_fixed_point_iteration_inverts_a_method() -> None:
    ddim, times = solvers.get("ddim"), torch.linspace(2.0, 0.3, 41)
    problem, errors = problem_for(ddim), []
    for name in ("ddim", "fixed_point_ddim:iterations=3", "anderson_ddim"):
        solver = solvers.get(name)
        assert str(solver.undone_by) == "ddim"
        there = solve(problem, starts(), times, solver)
        assert there.calls.tolist() == [solver.calls(40)] * 5
        back = solve(problem, there.x, times.flip(0), solver.undone_by)
        errors.append((back.x - starts()).abs().max().item())
    assert errors[0] > 100 * errors[1] > 1e4 * errors[2] > 0
    assert errors[2] < 1e-8


def test_rows_of_a_solution_are_undone_alone() -> None:
    times = torch.linspace(0.3, 2.0, 9)
    there = solve(ODE(drift), starts(), times, "reversible_heun").rows(torch.tensor([3, 1]))
    back = solve(ODE(drift), there.x, times.flip(0), "reversible_heun", companion=there.companion)
    assert (back.x - starts()[[3, 1]]).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["edict", "reversible_heun", "rex_rk4", "lattice_heun"])
def test_a_run_that_has_no_calls_ends_where_it_began(name: str) -> None:
    solver, x = solvers.get(name), start(0.3)
    s = solve(
        problem_for(solver),
        x,
        torch.linspace(0.3, 2.0, 4),
        solver,
        max_calls=1,
        on_failure="partial",
    )
    assert s.status == ("max_calls",)
    assert torch.allclose(s.x, x, atol=1e-9)  # the lattice rounds
    assert s.companion is not None
    assert torch.equal(s.companion[:, 0], s.companion[:, 1])
