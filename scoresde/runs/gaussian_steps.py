r"""Steps that are Gaussian given the states before them: their normal numbers and deviations."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solvers import Problem, Solver
from solvers.network_calls import counting

from .current import Current, running
from .noise import Normals
from .run import Run


class GaussianSteps(NamedTuple):
    r"""The steps of a path, in the coordinates of the solver.

    Arguments:
        normals: The normal numbers that lead from each state to the next, n tensors with shape (B, *).
        stds: The standard deviations of the steps, n tensors with shape (B, *), or (1, *) if all samples share
            their times.
        calls: The network calls.
    """

    normals: list[Tensor]
    stds: list[Tensor]
    calls: int


def gaussian_steps(run: Run, states: Sequence[Tensor]) -> GaussianSteps:
    r"""Returns the normal numbers with which a run would follow a path.

    A step is :math:`X_{i+1} = m(X_i, X_{i-1}, \dots) + s_i z_i`, so the solver's own step without noise gives the
    mean, and its step from 0 in a field of zeros, with normal numbers of 1, gives the deviation.

    Arguments:
        run: The run, whose solver has Gaussian steps (:class:`solvers.Abilities`).
        states: The states at its n + 1 times, in the coordinates of its problem.

    Raises:
        ValueError: If a step adds no noise.
    """

    solver, x, count = run.settings.method, states[0], len(run.times) - 1
    problem = run.reverse.problem()
    clock = run.reverse.to_clock(run.times)
    silent = problem.map(lambda field: torch.zeros_like)
    origin, known = torch.zeros_like(x), len(x) if clock.ndim > 1 else 1
    ends = _steps(solver, silent, clock, [origin] * count, torch.ones_like(x))
    stds = [end[:known].clone() for end in ends]
    still = [i for i, std in enumerate(stds) if not bool((std > 0).all())]
    if still:
        start, stop = (run.times[still[0] + k].flatten()[0].item() for k in (0, 1))
        raise ValueError(
            f"the step from t={start:.4g} to t={stop:.4g} by {solver} adds no noise, so it has no density; use "
            "a larger eta=, or another solver, such as 'ancestral'."
        )
    if run.settings.grad == "checkpoint":
        problem = problem.map(lambda field: partial(checkpoint, field, use_reentrant=False))
    current = Current(solver, run.times, run.eta)
    with counting() as counter, running(current):
        watched = problem.map(counter.watch)
        means = _steps(solver, watched, clock, states[:-1], origin)
        steps = zip(states[1:], means, stds, strict=True)
        normals = [(state - mean) / std for state, mean, std in steps]
    return GaussianSteps(normals, stds, counter.total)


def _steps(
    solver: Solver, problem: Problem, clock: Tensor, states: Sequence[Tensor], normal: Tensor
) -> Iterator[Tensor]:
    r"""The ends of the steps from given states, all with the same normal numbers."""

    memory = None
    noise = Normals(normal.expand(len(states), *normal.shape))
    plan = solver.plan(problem, clock[:-1], clock[1:], states[0])
    for coefficients, state in zip(plan, states, strict=True):
        end, memory = solver.step(coefficients, state.clone(), memory, noise)[:2]
        yield end
