r"""The loop over a grid: coefficients come first, then steps that never wait for the device."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..control import Control, Memory
from ..errors import give_solution
from ..problem import Problem
from ..shapes import row_finite
from ..solver import Run, Solution, Solver
from .record import Record, says_stop

CHECK_EVERY = 8  # steps between checks of the state, each of which waits for the device


class _Place(NamedTuple):
    r"""Where a run stands between two steps."""

    step: int  # number of steps taken
    x: Tensor
    memory: object
    calls: int
    cost: int  # calls of the last step


def march(method: Solver, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Run:
    r"""Takes one step per interval of the grid.

    The state is checked every few steps and at the end. If it is no longer finite, the steps since the last
    check are repeated one by one, to find which samples failed and when. An error or interrupt carries the
    solution up to the last step that was completed.
    """

    dtype, counter, can, ended = x.dtype, control.counter, method.can, ""
    x, memory = method.resume(x, control.companion)
    record, here = Record(problem, x, times, control), _Place(0, x, memory, counter.total, 0)
    if control.memory:
        here = _recalled(method, record, control.memory)
        counter.total = here.calls
    plan = method.plan(problem.map(counter.watch), times[:-1], times[1:], x)
    first, every = max(method.calls(1), can.calls_per_step), CHECK_EVERY
    saved, told = here, here.step
    try:
        while here.step < len(plan) and record.any_alive and not ended:
            (i, x, memory, _, cost), before = here, counter.total
            price = can.calls_per_step if i else first
            if record.spent(before + max(price * problem.cost, cost)):
                ended = "max_calls"
                break
            start = control.seam(i, x) if control.seam and i else x
            x, memory = method.step(plan[i], start, memory, control.noise)[:2]
            there = _Place(i + 1, x, memory, counter.total, counter.total - before)
            if there.step % every == 0 or there.step == len(plan):
                bad = record.alive & ~row_finite(x)
                if bool(bad.any()) and every > 1:
                    here, every = saved, 1
                    counter.total = saved.calls  # repeated steps are not counted twice
                    continue
                _fail(record, bad, here, there, can.limit)
                saved, every = there, CHECK_EVERY if bool(bad.any()) else every
            if there.step > told:
                told = there.step
                record.keep(told, x)
                if record.due(told / len(plan)):
                    record.count(counter.total, told)
                    if says_stop((yield record.event(told / len(plan), times[told], x))):
                        ended = "stopped"
            here = there  # last, since an interrupt may come between any two lines
    except (Exception, KeyboardInterrupt) as error:
        place = record, here, saved, "stopped"
        give_solution(error, lambda: _finished(method, *place, dtype))
        raise
    return _finished(method, record, here._replace(calls=counter.total), saved, ended, dtype)


def _recalled(method: Solver, record: Record, known: Memory) -> _Place:
    r"""The place at which a run ended early, whose record is recalled, too."""

    record.recall(known["record"])
    place = _Place(*(known[name] for name in _Place._fields))
    record.keep(place.step, place.x)
    return place._replace(memory=method.recall(place.memory))


def _hold(record: Record, here: _Place, saved: _Place) -> None:
    r"""Holds the place from which the run goes on: the last one that was checked if this one is not finite."""

    fine = bool(row_finite(here.x)[record.alive].all())
    record.hold(**(here if fine else saved)._asdict())


def _finished(
    method: Solver, record: Record, here: _Place, saved: _Place, ended: str, dtype: torch.dtype
) -> Solution:
    r"""The solution of a run, or of its steps so far."""

    record.count(here.calls, here.step)
    rows = record.alive.nonzero()[:, 0]
    if here.step < len(record.times) - 1 and len(rows):
        _hold(record, here, saved)
        x, time = here.x[rows.to(here.x.device)], _at(record.times[here.step], rows)
        if ended == "max_calls":
            record.fail(ended, rows, x, time)
        else:
            record.stop(rows, x, time)
    solution = record.finish(here.x)
    path = solution.path if solution.path is None else solution.path.to(dtype)
    companion, estimate = method.carry(here.x, here.memory), method.last_estimate(here.memory)
    x = solution.x.to(dtype)
    return replace(solution, x=x, path=path, companion=companion, estimate=estimate)


def _at(time: Tensor, rows: Tensor) -> Tensor:
    return time if time.ndim == 0 else time[rows]


def _fail(record: Record, bad: Tensor, before: _Place, after: _Place, limit: str) -> None:
    rows, i = bad.nonzero()[:, 0], after.step
    if len(rows):
        record.hold(**before._asdict())
        record.count(after.calls, i - 1)
        ends = [_at(times, rows).flatten()[0].item() for times in record.times[i - 1 : i + 1]]
        start, stop = (record.problem.describe(t) for t in ends)
        words = f"the step from {start} to {stop}{limit}"
        x, time = before.x[rows.to(before.x.device)], _at(record.times[i - 1], rows)
        record.fail("nonfinite", rows, x, time, words)
        record.held = None
