r"""The entry points of the package: integrate a problem along a grid, after all checks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .catalogue import get
from .control import Control, Event
from .controller import Controller
from .doors.signatures import checked
from .doors.values import Array, as_tensor
from .gradients import check_gradients
from .loops.adaptive import adapt
from .loops.fixed_grid import march
from .loops.steps import Steps
from .noise.brownian import Brownian, Increments
from .noise.path import Path
from .problem import Problem
from .shapes import row_finite
from .solver import Solution, Solver


@checked
def solve(
    problem: Problem,
    x: Array,
    times: Array,
    solver: str | Solver,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    noise: Brownian | None = None,
    seed: int = 0,
    path: bool = False,
    callback: Callable[[Event], object] | None = None,
    pause: float = 0.0,
    max_calls: int | None = None,
    max_steps: int = 10_000,
    max_step: float | None = None,
    first_step: float | None = None,
    on_failure: Literal["raise", "partial"] = "raise",
    grad: Literal["none", "backprop", "checkpoint", "adjoint"] = "none",
    parameters: Sequence[Tensor] = (),
    companion: Tensor | None = None,
    seam: Callable[[int, Tensor], Tensor] | None = None,
) -> Solution:
    r"""Integrates a problem from the first to the last of the given times.

    Without tolerances, the solver takes one step per interval of the grid. With tolerances, it chooses its own
    steps (separately for each sample if it is native), and the times in between are only those at which the path
    is kept.

    Arguments:
        problem: The problem.
        x: The state at `times[0]`, with shape (B, *).
        times: Strictly increasing or decreasing times, with shape (n + 1,), n >= 1, or (n + 1, B) when samples
            differ.
        solver: A solver, or its name.
        rtol: The relative tolerance of each step; 0 if only `atol` is given.
        atol: The absolute tolerance of each step, in units of the state; equal to `rtol` if only that is given.
        noise: The Brownian motion for a stochastic solver. By default, it is keyed by `seed`.
        seed: The seed of the noise.
        path: Whether to keep the states at all `times`.
        callback: A function that is called with the :class:`Event` of each accepted step and ends the run by
            returning `True`.
        pause: The minimum time between two calls of `callback`, in seconds; the last step is always reported.
        max_calls: The maximum number of network calls per sample.
        max_steps: The maximum number of adaptive steps per sample.
        max_step: The maximum adaptive step, in the pace of the problem. By default, that of the problem times
            the order of the error estimate, which is one below the solver's.
        first_step: The initial adaptive step, in the pace of the problem. By default, the solver chooses it.
        on_failure: "raise", or "partial" to end only the samples concerned and go on.
        grad: "none"; "backprop" through all steps; "checkpoint", which evaluates each drift again instead of
            keeping its intermediate results; or "adjoint".
        parameters: The tensors for which the adjoint gives gradients, besides the initial state.
        companion: The companion of a reversible solver's solution, to go back from its end.
        seam: A function of the number of completed steps and the state, applied to the state between two grid
            steps: for instance the rounding of other coordinates, if a run in parts must have the bits of the
            whole run.

    Raises:
        ValueError: If times, problem, tolerances or options do not fit together.
        SolverError: If the run fails.

    Examples:
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.linspace(0, 1, 11)
        >>> s = solvers.solve(decay, torch.ones(1, 1), times, "rk4")
        >>> round(float(s.x), 4)  # exp(-1)
        0.3679
    """

    x, times, solver = taken(problem, x, times, solver, grad)
    control = Control(
        make_controller(problem, solver, rtol, atol, max_steps, max_step, first_step),
        noise, path, callback, pause, max_calls, on_failure, grad, tuple(parameters), companion, seam,
    )  # fmt: skip
    return begin(problem, x, times, solver, control, seed).finish(callback)


@checked
def steps(
    problem: Problem,
    x: Array,
    times: Array,
    solver: str | Solver,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    noise: Brownian | None = None,
    seed: int = 0,
    path: bool = False,
    max_calls: int | None = None,
    max_steps: int = 10_000,
    max_step: float | None = None,
    first_step: float | None = None,
    on_failure: Literal["raise", "partial"] = "raise",
    grad: Literal["none", "backprop", "checkpoint"] = "none",
    companion: Tensor | None = None,
    seam: Callable[[int, Tensor], Tensor] | None = None,
) -> Steps:
    r"""Integrates a problem one step at a time, as you iterate over it.

    It yields an :class:`Event` after each accepted step. At the end, its `solution` is that of :func:`solve`, to
    the last bit; :meth:`Steps.stop` ends it early.

    The arguments are those of :func:`solve`.

    Raises:
        ValueError: If times, problem, tolerances or options do not fit together, or the solver runs its own
            loop, as the methods of torchdiffeq do.
        SolverError: When the run fails.

    Examples:
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 0.5, 1.0])
        >>> for event in solvers.steps(decay, torch.ones(1, 1), times, "euler"):
        ...     print(event.fraction, float(event.x))
        0.5 0.5
        1.0 0.25
    """

    x, times, solver = taken(problem, x, times, solver, grad)
    if not solver.stepwise:
        raise ValueError(
            f"{solver} takes all its steps by itself, so there is nothing to iterate over; pass callback= to "
            "solvers.solve, or use a native solver, such as 'dopri5'."
        )
    control = Control(
        make_controller(problem, solver, rtol, atol, max_steps, max_step, first_step),
        noise, path, _listens, 0.0, max_calls, on_failure, grad, (), companion, seam,
    )  # fmt: skip
    return begin(problem, x, times, solver, control, seed)


def _listens(event: Event) -> None:
    r"""Stands in for the iterating caller, so that loops yield their events."""


def taken(
    problem: Problem, x: Array, times: Array, solver: str | Solver, grad: str
) -> tuple[Tensor, Tensor, Solver]:
    r"""Returns state, times and solver as runs take them, after checking that solver and problem fit."""

    if not (isinstance(x, Tensor) and x.is_complex() and x.layout == torch.strided):
        x = as_tensor("x", x)
    if not x.is_floating_point() and not x.is_complex():
        raise TypeError(f"x must hold floating-point numbers, but holds {x.dtype}.")
    if not x.ndim or not x.numel():
        raise ValueError(f"x must have shape (B, *) with B >= 1, but has {tuple(x.shape)}.")
    solver = get(solver)
    if not isinstance(problem, solver.can.solves):
        given, wanted = type(problem).__name__, solver.can.solves.__name__
        raise ValueError(f"{solver} solves a problem of type {wanted}, but got {given}.")
    check_gradients(solver, grad)
    return x, as_tensor("times", times, torch.float64), solver


def begin(
    problem: Problem, x: Tensor, times: Tensor, solver: Solver, control: Control, seed: int = 0
) -> Steps:
    r"""Returns the run of :func:`solve`, before its first step."""

    if not bool(row_finite(x.detach()).all()):
        raise ValueError("x must be finite, but has NaN or infinite entries.")
    times = check_times(times, len(x))
    check_even(solver, times)
    if control.companion is not None and not solver.can.reversible:
        raise ValueError(
            f"companion= has no effect on {solver}, which is not reversible; leave it out."
        )
    if solver.can.stochastic or control.noise is not None:
        control = replace(control, noise=_seen(control, solver, x, times, seed))
    if control.grad == "checkpoint":
        problem = problem.map(lambda field: partial(checkpoint, field, use_reentrant=False))
    loop = march if control.controller is None else adapt
    run = solver.integrate(problem, x, times, control, loop)
    return Steps(solver, run, control.counter, control.grad != "none")


def _seen(control: Control, solver: Solver, x: Tensor, times: Tensor, seed: int) -> Brownian:
    r"""The noise of a run as its loop sees it, that of the seed if there is no other."""

    noise, on_grid = control.noise, control.controller is None
    if noise is None:
        form = Increments if on_grid else Path
        noise = form(seed, torch.arange(len(x), device=x.device), x)
    if on_grid:
        noise.check(times)
        return noise.on(times)
    check_tries(solver, noise, control.path)
    return noise


def check_times(times: Tensor, batch: int | None = None) -> Tensor:
    r"""Returns the times in float64 on the CPU, after checking that they are monotone and fit the batch."""

    times = times.detach().cpu()
    if times.ndim not in (1, 2) or len(times) < 2:
        shape = tuple(times.shape)
        raise ValueError(
            f"times must have shape (n + 1,) or (n + 1, B) with n >= 1, but has {shape}."
        )
    steps = times.diff(dim=0)
    low, high = (step.item() for step in steps.aminmax())
    if not (0 < low <= high < math.inf or -math.inf < low <= high < 0):
        if not bool(times.isfinite().all()):
            where = int((~times.isfinite()).nonzero()[0, 0])
            bad = times[where].flatten()[~times[where].flatten().isfinite()][0]
            raise ValueError(f"times must be finite, but times[{where}] is {bad:.4g}.")
        forward = steps * (times[-1] - times[0]).sum().sign() > 0
        where, *row = (~forward).nonzero()[0].tolist()
        a, b = (times[(k, *row)].item() for k in (where, where + 1))
        raise ValueError(f"times must be strictly monotone, but go from {a:.6g} to {b:.6g}.")
    if batch is not None and times.ndim > 1 and times.shape[1] != batch:
        raise ValueError(f"times of shape (n + 1, B) must have B = {batch}, not {times.shape[1]}.")
    return times


def check_tries(solver: Solver, noise: Brownian | None, path: bool) -> None:
    r"""Refuses noise and options that adaptive steps, which may be rejected, cannot have."""

    if not solver.can.stochastic:
        return
    if isinstance(noise, Increments):
        raise ValueError(f"{solver} tries steps of any size, so its noise must be a Path.")
    if path:
        raise ValueError(
            f"path= has no effect on {solver}, which keeps no states between its steps; leave it out."
        )


def make_controller(
    problem: Problem,
    solver: Solver,
    rtol: float | None,
    atol: float | None,
    max_steps: int = 10_000,
    max_step: float | None = None,
    first_step: float | None = None,
) -> Controller | None:
    r"""Returns the controller for the tolerances, or `None` if there are none."""

    if rtol is None and atol is None:
        if not solver.can.fixed:
            raise ValueError(f"{solver} chooses its own steps: pass rtol= and atol=.")
        return None
    if not solver.can.adaptive:
        raise ValueError(
            f"{solver} does not estimate its error, so rtol= and atol= have no effect; "
            "pass steps=, or use an adaptive solver such as 'dopri5'."
        )
    if max_step is None:
        max_step = problem.longest * max(solver.can.order - 1, 1)
    if rtol is None:
        rtol = 0.0
    return Controller(rtol, rtol if atol is None else atol, max_steps, max_step, first_step)


def check_even(solver: Solver, times: Tensor) -> None:
    r"""Refuses an uneven grid if the solver's coefficients assume an even one."""

    if not solver.can.even:
        return
    steps = times.diff(dim=0)
    if not math.isclose(steps.min().item(), steps.max().item(), rel_tol=1e-6):
        raise ValueError(
            f"{solver} needs steps of equal size, but they range from {steps.abs().min():.4g} to "
            f"{steps.abs().max():.4g}; use a grid that is even in the solver's clock, or another solver."
        )
