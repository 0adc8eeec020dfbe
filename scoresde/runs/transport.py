r"""Transport from one time of a process to another by any solver, on which all public functions build."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from solvers import Brownian, Problem, Solution, Solver, SolverError
from solvers.control import Control, Memory
from solvers.errors import change_solution, give_solution
from solvers.integrate import begin, make_controller

from ..models.conditions import leaves
from ..models.derivative import check_derivative
from ..models.masked import kept_of
from ..models.score_model import ScoreModel
from ..models.self_conditioned import first_calls, no_calls, refuse_memory
from ..processes.process import Process
from ..reverse.reverse import Reverse
from .between import seam
from .carrying import carrying
from .current import Current, running
from .listener import listener
from .memory import remember
from .noise import see_noise
from .progress import REFRESH, Late
from .run import Run
from .settings import Settings
from .watched import Watched

BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def transport(run: Run, x: Tensor, companion: Tensor | None = None) -> Solution:
    r"""Carries states from the first to the last time of a run along the reverse process.

    Arguments:
        run: The run.
        x: The states at the first time, with shape (B, *).
        companion: The companion from which a reversible solver goes back.
    """

    settings, dtype, method = run.settings, x.dtype, run.settings.method
    can = method.can
    x = x.double() if can.exact else x  # changes of coordinates round too
    x = kept_of(run.model, x) if run.model.masked else x
    size = can.block or settings.batch_size or len(x)
    settings.check_batch(len(x), len(run.times) - 1)
    if settings.adaptive:
        _check_resolution(x, settings, run.model.process)
    if run.model.carries_estimate and bool((run.times[-1] > run.times[0]).any()):
        refuse_memory(run.model, "a run from data to noise")
    if settings.grad != "none":
        with first_calls():
            check_derivative(run.model, x, "reverse", f"grad={settings.grad!r}", size)
    if len(run.times) == 1:  # a run that consists of its last denoising
        return _whole(run, x, companion, [_arrived(x, run.times, settings.path)], dtype)
    parts: list[Solution] = []
    shown = {"total": len(x), "desc": str(method), "bar_format": BAR}
    with Late(**shown) if settings.progress else nullcontext() as progress:
        for some in _batches(run, x, companion, size):
            if parts and "stopped" in parts[-1].status:  # by the callback, and so for all
                parts.append(_untouched(some.x, some.times, settings.path))
                continue
            try:
                done = some.known and some.known["solution"]
                parts.append(Solution(**done) if done else _solve(some, settings, progress))
            except SolverError as error:  # name the sample in the whole run, keep what is done
                here = [row for row in error.failure.samples if row < len(some.samples)]
                samples = tuple(row + some.samples.start for row in here)
                kept = [*parts, error.solution] if error.solution else parts
                failure = replace(error.failure, samples=samples)
                solution = _whole(run, x, companion, kept, dtype) if kept else None
                raise SolverError(failure, solution) from None
            except (Exception, KeyboardInterrupt) as error:
                own = vars(error).pop("solution", None)
                kept = [*parts, own] if isinstance(own, Solution) else parts
                give_solution(error, partial(_broken, run, x, companion, kept, dtype))
                raise
    return _whole(run, x, companion, parts, dtype)


def _whole(
    run: Run, x: Tensor, companion: Tensor | None, parts: list[Solution], dtype: torch.dtype
) -> Solution:
    r"""The solution of all samples, or of the first ones, with what they need to go on if they ended early."""

    whole, memory = Solution.stack(parts), None
    path = whole.path if whole.path is None else whole.path.to(dtype)
    if len(whole) < len(x) or any(part.memory is not None for part in parts):
        memory = remember(run, x.to(dtype), companion, parts)
    made, method = run.provenance, run.settings.method
    x = whole.x.to(dtype)
    return replace(whole, x=x, path=path, provenance=made, solver=method, memory=memory)


def _broken(
    run: Run, x: Tensor, companion: Tensor | None, parts: list[Solution], dtype: torch.dtype
) -> Solution:
    r"""The solution of all samples when an error or interrupt comes, given that of the first ones."""

    done = sum(map(len, parts))
    if done < len(x):
        times = run.times if run.times.ndim == 1 else run.times[:, done:]
        parts = [*parts, _untouched(x[done:], times, run.settings.path)]
    return _whole(run, x, companion, parts, dtype)


def _batches(run: Run, x: Tensor, companion: Tensor | None, size: int) -> Iterator["_Some"]:
    r"""The samples in batches; repetitions of the last one fill up a block."""

    block, reverse, times = run.settings.method.can.block, run.reverse, run.times
    begun, first = iter(run.memory["parts"] if run.memory else ()), 0
    while first < len(x):
        known = next(begun, None)
        count = known["count"] if known else min(size, len(x) - first)
        rows = torch.arange(first, first + max(count, block)).clamp(max=len(x) - 1)
        samples, first = range(first, first + count), first + count
        if count == len(rows) == len(x):  # all of them
            motion = see_noise(reverse, x, rows, times, run.settings)
            other = None if companion is None else companion.to(x.device)
            yield _Some(reverse, x, samples, times, motion, other, known)
            continue
        part, here = reverse.rows(rows), rows.to(x.device)
        grid = times if times.ndim == 1 else times[:, rows]
        motion = see_noise(part, x[here], rows, grid, run.settings)
        other = None if companion is None else companion.to(x.device)[here]
        yield _Some(part, x[here], samples, grid, motion, other, known)


def _check_resolution(x: Tensor, settings: Settings, process: Process) -> None:
    r"""Refuses tolerances below the precision of the state, or so large that everything meets them."""

    known = settings.tolerances
    loosest = max(known["rtol"] or 0.0, known["atol"] or 0.0)
    if settings.atol is not None and settings.atol > (largest := process.prior_std()):
        raise ValueError(
            f"atol must be at most {largest:.4g}, the deviation of the prior, but is {settings.atol:.4g}."
        )
    least = torch.finfo(x.dtype).eps / 1000  # what rounding allows, with a wide margin
    if loosest < least:
        raise ValueError(
            f"rtol and atol must not both be below {least:.2g}, which {x.dtype} cannot resolve, but are "
            f"at most {loosest:.2g}; loosen one, or pass dtype=torch.float64."
        )


class _Some(NamedTuple):
    r"""Rows that are integrated at once. The last one may be repeated, to fill a block."""

    reverse: Reverse
    x: Tensor
    samples: range
    times: Tensor
    noise: Brownian | None
    companion: Tensor | None
    known: Memory | None  # of an earlier run that ended early


def _stated(reverse: Reverse, method: Solver, x: Tensor) -> tuple[Problem, Solver]:
    problem = reverse.problem()
    return carrying(problem, method, x) if reverse.model.carries_estimate else (problem, method)


def _solve(some: _Some, settings: Settings, progress: Late | None) -> Solution:
    reverse, x, samples, times, noise, companion, known = some
    watch = Watched(reverse.model) if settings.callback is not None else None
    reverse = reverse if watch is None else replace(reverse, model=watch)

    def finish(solution: Solution) -> Solution:
        solution = reverse.solution(solution, times)
        if len(x) == len(samples):
            return solution
        return replace(solution.rows(range(len(samples))), memory=solution.memory)

    made = Current(settings.method, None if settings.adaptive else times, reverse.eta)
    try:
        with running(made), no_calls() if reverse.model.carries_estimate else nullcontext():
            problem, method = _stated(reverse, settings.method, x)
            told = listener(reverse, watch, times, samples, settings, progress)
            control = Control(
                make_controller(
                    problem,
                    method,
                    **settings.tolerances,
                    max_step=settings.max_step,
                    first_step=settings.first_step,
                ),
                noise=noise,
                path=settings.path,
                callback=told,
                pause=0.0 if settings.callback else REFRESH,
                max_calls=settings.max_calls,
                on_failure=settings.on_failure,
                grad=settings.grad,
                parameters=_parameters(reverse.model) if settings.grad == "adjoint" else (),
                companion=companion,
                memory=known and known["loop"],
                seam=seam(reverse, times, x, settings.method, noisy=noise is not None),
            )
            start, clock = reverse.enter(x, times[0]), reverse.to_clock(times)
            solution = begin(problem, start, clock, method, control).finish(told)
    except (Exception, KeyboardInterrupt) as error:
        change_solution(error, finish)
        if isinstance(error, SolverError):
            raise SolverError(made.blame(error.failure), error.solution) from None
        raise
    return finish(solution)


def _arrived(x: Tensor, times: Tensor, kept: bool) -> Solution:
    r"""The solution of a run without steps."""

    start = _untouched(x, times, kept)
    return replace(start, status=("ok",) * len(x), memory=None)


def _untouched(x: Tensor, times: Tensor, kept: bool) -> Solution:
    r"""The solution of samples that were never started, whose path is only their start."""

    none = torch.zeros(len(x), dtype=torch.int64)
    reached, path = times[0].expand(len(x)), None
    if kept:
        path = x.new_full((len(times), *x.shape), torch.nan)
        path[0] = x
    return Solution(x, times, reached, none, none, none, ("stopped",) * len(x), path, memory={})


def _parameters(model: ScoreModel) -> tuple[Tensor, ...]:
    r"""Weights and conditions that require gradients."""

    bound = [c for m in model.modules() for c in getattr(m, "bound", {}).values()]
    given = [tensor for condition in bound for tensor in leaves(condition)]
    return tuple(p for p in (*model.parameters(), *given) if p.requires_grad)
