r"""The loop over a grid: coefficients come first, then steps that never wait for the device."""

from dataclasses import replace

from torch import Tensor

from ..control import Control
from ..problem import Problem
from ..shapes import row_finite
from ..solver import Run, Solver
from .record import Record, says_stop

CHECK_EVERY = 8  # steps between checks of the state, each of which waits for the device


def march(method: Solver, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Run:
    r"""Takes one step per interval of the grid.

    The state is checked every few steps and at the end. If it is no longer finite, the steps since the last
    check are repeated one by one, to find which samples failed and when.
    """

    dtype, counter, can = x.dtype, control.counter, method.can
    x, memory = method.resume(x, control.companion)
    record = Record(problem, x, times, control)
    plan = method.plan(problem.map(counter.watch), times[:-1], times[1:], x)
    price, i, every = max(method.calls(1), can.calls_per_step), 0, CHECK_EVERY
    saved, told, before, known = (i, x, memory), 0, 0, 0
    while i < len(plan) and record.any_alive:
        cost = max(price * problem.cost, counter.total - before)
        if record.spent(counter.total + cost):
            _stop(record, x, i, counter.total)
            break
        before, price = counter.total, can.calls_per_step
        start = control.seam(i, x) if control.seam and i else x
        x, memory = method.step(plan[i], start, memory, control.noise)[:2]
        i += 1
        if i % every == 0 or i == len(plan):
            bad = record.alive & ~row_finite(x)
            if bool(bad.any()) and every > 1:
                (i, x, memory), every = saved, 1
                counter.total = before = known  # repeated steps are not counted twice
                continue
            _fail(record, bad, saved[1], i, counter.total, can.limit)
            saved, known = (i, x, memory), counter.total
            every = CHECK_EVERY if bool(bad.any()) else every
        if i > told:
            told = i
            record.keep(i, x)
            if record.due(i / len(plan)):
                record.count(counter.total, i)
                if says_stop((yield record.event(i / len(plan), times[i], x))):
                    break
    record.count(counter.total, i)
    if i < len(plan) and record.any_alive:
        rows = record.alive.nonzero()[:, 0]
        record.stop(rows, x[rows.to(x.device)], _at(times[i], rows))
    solution = record.finish(x)
    path = solution.path if solution.path is None else solution.path.to(dtype)
    companion = method.carry(x, memory)
    return replace(solution, x=solution.x.to(dtype), path=path, companion=companion)


def _at(time: Tensor, rows: Tensor) -> Tensor:
    return time if time.ndim == 0 else time[rows]


def _stop(record: Record, x: Tensor, i: int, calls: int) -> None:
    record.count(calls, i)
    rows = record.alive.nonzero()[:, 0]
    record.fail("max_calls", rows, x[rows.to(x.device)], _at(record.times[i], rows))


def _fail(record: Record, bad: Tensor, x: Tensor, i: int, calls: int, limit: str) -> None:
    rows = bad.nonzero()[:, 0]
    if len(rows):
        record.count(calls, i - 1)
        ends = [_at(times, rows).flatten()[0].item() for times in record.times[i - 1 : i + 1]]
        start, stop = (record.problem.describe(t) for t in ends)
        words = f"the step from {start} to {stop}{limit}"
        record.fail("nonfinite", rows, x[rows.to(x.device)], _at(record.times[i - 1], rows), words)
