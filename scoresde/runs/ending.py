r"""How decoding ends: one denoising, and a check of the result.

A state of the process has about the root mean square :math:`\sqrt{\alpha^2 c^2 + \sigma^2}`, for data with root
mean square c. By Markov's inequality, in a law with this second moment at most a fraction :math:`1 / k^2` of
samples is k times as large, so far larger samples are not rare events but come from a run that diverged. If the
scale of the data is unknown, c is the noise level at `t_max`, since noise would not cover larger data.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from solvers import Failure, Solution, SolverError, counting
from solvers.errors import change_solution, give_solution
from solvers.kept import kept, told
from solvers.shapes import row_finite, row_where

from ..doors.warning import warn
from ..models.estimate import estimate
from ..models.score_model import ScoreModel
from ..models.self_conditioned import with_estimate
from ..processes.process import Process
from .between import changed_between
from .current import Current, running
from .memory import remember
from .run import Run
from .settings import Settings
from .transport import transport
from .trial import warn_of_gain

FAR = 30.0  # times the expected size, for all samples at once: a warning
DIVERGED = 1e4  # and for one sample: a failure
LAST = "raise t_min, or check the network there"


def carried(run: Run, x: Tensor, companion: Tensor | None = None) -> Solution:
    r"""Carries states to the end of a run, and checks their size; see :func:`transport`."""

    if run.memory is None:
        warn_of_gain(run)
    solution = transport(run, x, companion)
    return _judged(run, x, solution, clean=False)


def denoised(run: Run, x: Tensor, companion: Tensor | None = None) -> Solution:
    r"""Carries states to the end of a run, and denoises them once; see :func:`transport`."""

    if run.memory is None:
        warn_of_gain(run)
    try:
        solution = transport(run, x, companion)
        found, failure, calls = _last(run, solution, x, companion)
    except (Exception, KeyboardInterrupt) as error:
        if not isinstance(error, SolverError):
            change_solution(error, _all_stopped)
        raise
    model, settings, t = run.model, run.settings, solution.times[-1]
    ok = torch.tensor([status == "ok" for status in solution.status])
    good = ok & row_finite(found.detach())
    solution = replace(
        solution,
        x=_kept(good, found, solution.x),
        calls=solution.calls + calls * ok,
        estimate=None,
    )
    if not torch.equal(good, ok):
        words = f"the last denoising, at {model.process.describe(t.flatten()[0].item())},"
        failure = replace(failure, time=words, cure=failure.cure or LAST)
        solution = _failed(solution, ok & ~good, failure, settings)
    return _judged(run, x, solution, clean=True)


def _kept(good: Tensor, found: Tensor, x: Tensor) -> Tensor:
    r"""The denoised states where they are good, and the states elsewhere; NaN if those have other shapes."""

    if bool(good.all()):
        return found
    if found.shape != x.shape:
        return row_where(good, found, torch.full_like(found, math.nan)) if bool(good.any()) else x
    return row_where(good, found, x)


def reserved(run: Run, most: int, after: Mapping[str, int]) -> Run:
    r"""Returns the run without the calls that are needed after its last step, by their use."""

    calls = sum(after.values())
    if len(run.times) == 1 and most >= calls:  # a run without steps
        return run
    if most <= calls:
        uses = " and the ".join(after)
        raise ValueError(f"max_calls must be more than the {calls} of the {uses}, but is {most}.")
    return replace(run, settings=replace(run.settings, max_calls=most - calls))


def _last(
    run: Run, solution: Solution, x: Tensor, companion: Tensor | None
) -> tuple[Tensor, Failure, int]:
    r"""The denoised states, the failure if one of them is not finite, and the calls per sample."""

    model, settings, t, whole = run.model, run.settings, solution.times[-1], len(solution)
    clean, failure, grid = [], Failure("nonfinite", (), ""), run.grid
    try:
        with counting() as counter:
            for rows in torch.arange(whole).split(settings.batch_size or whole):
                own = grid if grid is None or grid.ndim == 1 else grid[:, rows]
                with running(Current(settings.method, own, run.eta)) as current:
                    part = model.rows(rows) if len(rows) < whole else model
                    here = slice(None) if len(rows) == whole else rows.to(x.device)
                    state = changed_between(model, solution.x[here], t)
                    time = t.expand(len(rows)) if t.ndim == 0 else t[rows]
                    clean.append(_clean(part, state, time, solution, here))
                failure = failure if failure.cause else current.blame(failure)
    except (Exception, KeyboardInterrupt) as error:  # the solution is where it was before
        held = solution.memory or remember(run, x, companion, [solution])
        give_solution(error, lambda: replace(solution, memory=held))
        raise
    found = clean[0] if len(clean) == 1 else torch.cat(clean)
    return found, failure, max(counter.total // len(clean), 1)


def _clean(
    model: ScoreModel, x: Tensor, t: Tensor, solution: Solution, rows: Tensor | slice
) -> Tensor:
    r"""The denoised states of some rows, by a call that is given their last estimate."""

    last = None if solution.estimate is None else solution.estimate[rows]
    return with_estimate(lambda: estimate(model, x, t), last)[0]


def _all_stopped(solution: Solution) -> Solution:
    r"""The solution of a run that was interrupted before its last denoising."""

    status = tuple("stopped" if known == "ok" else known for known in solution.status)
    return replace(solution, status=status)


def _failed(solution: Solution, bad: Tensor, failure: Failure, settings: Settings) -> Solution:
    r"""The solution with failed samples marked.

    Raises:
        SolverError: If failures are to raise.
    """

    if not bool(bad.any()):
        return solution
    status = tuple(
        failure.kind if wrong else known
        for known, wrong in zip(solution.status, bad.tolist(), strict=True)
    )
    solution = replace(solution, status=status)
    if settings.on_failure == "raise":
        samples = tuple(bad.nonzero()[:, 0].tolist())
        raise SolverError(replace(failure, samples=samples), solution)
    return solution


def _judged(run: Run, start: Tensor, solution: Solution, *, clean: bool) -> Solution:
    r"""The solution, with samples marked as failed that are far larger than prior and data."""

    model, settings = run.model, run.settings
    if not model.process.has_scales:  # whose states have no known size
        return solution
    process, times, c = model.process, solution.times, model.data_scale
    size = process.bare_noise_level(process.t_max) if c is None else c
    after = _ratio(process, solution.x, times[-1], size, clean=clean)
    if bool((after <= FAR).all()):
        return solution
    before = _ratio(process, start, times[0], size, clean=False)
    ok = torch.tensor([status == "ok" for status in solution.status], device=start.device)
    excess = torch.where(
        ok, after / before.clamp(min=1), 0.0
    )  # what starts far away may end there
    far = (excess.square().sum() / ok.sum().clamp(min=1)).sqrt()
    overall, worst = torch.stack([far, excess.max()]).tolist()
    if not (worst > DIVERGED or overall > FAR):
        return solution
    where = process.describe(times[-1].flatten()[0].item())
    if worst > DIVERGED:
        bad = (excess > DIVERGED).cpu()
        return _failed(solution, bad, Failure("diverged", (), where), settings)
    known = (
        "of the noise at t_max (the scale of the data is not known)"
        if c is None
        else "of the data"
    )
    warn(
        f"at {where}, states are {overall:.3g} times as large as expected from the size {size:.3g} "
        f"{known}: the solver or the guidance diverges, or predicts= or data_std= is wrong; take smaller "
        "steps, less guidance, or another solver."
    )
    return solution


def _ratio(process: Process, x: Tensor, t: Tensor, size: float, *, clean: bool) -> Tensor:
    r"""The root mean square of each row over the expected one, with shape (B,)."""

    def due() -> Tensor:
        alpha, sigma = process.bare_scales(t)
        return (size**2 + (sigma / alpha) ** 2).sqrt() * (1 if clean else alpha)

    rows, expected = x.detach().flatten(1), kept(due, "size", process.key, told(t), size, clean)
    return torch.linalg.vector_norm(rows, dim=1) / math.sqrt(rows.shape[1]) / expected.to(x)
