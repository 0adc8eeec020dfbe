r"""The adaptive loop: every sample has its own time, step, order and end.

A finished sample leaves the batch, so that it costs no further calls. Row i of a batch takes the same steps as
it would take alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from ..control import Control, Memory
from ..controller import Controller
from ..errors import give_solution
from ..noise.brownian import Brownian
from ..problem import Problem, Sizes
from ..shapes import align, row_rms, row_where
from ..solver import Run, Solution, Solver, Step
from .record import Record, says_stop

SMALLEST = 1e-10  # of the span: a step below it means that no step is small enough
PLACE = ("rows", "t", "h", "x", "memory", "broken", "result", "estimate")  # needed to go on
AT_ONCE = 2048  # states of the path that are interpolated at once
PATIENCE = 10  # attempts without a finite error: steps that creep up to where the model breaks


@dataclass
class _Front:
    r"""The running samples: their rows, times, ends, step sizes, states and memories."""

    problem: Problem
    rows: Tensor
    t: Tensor
    stop: Tensor
    last: Sizes  # of states at the end
    h: Tensor
    x: Tensor
    memory: object
    noise: Brownian | None
    broken: Tensor  # number of attempts without a finite error
    nodes: Tensor  # the next grid time of each sample, those that are done included
    result: Tensor  # the final state of those that are done
    estimate: Tensor | None = None  # and their last estimate, if the method holds one

    def keep(self, mask: Tensor) -> None:
        self.pick(mask.nonzero()[:, 0], "rows", "t", "h", "x", "memory", "broken")

    def pick(self, index: Tensor, *names: str) -> None:
        r"""Picks some of the running samples, whose values are in the given attributes and those of the run."""

        self.problem = self.problem.subset(index)
        for name in (*names, "stop", "last"):
            setattr(self, name, _mapped(lambda v: v[index.to(v.device)], getattr(self, name)))
        self.noise = None if self.noise is None else self.noise.rows(index)

    def end(self, method: Solver, finished: Tensor) -> None:
        r"""Keeps the ends of the running samples that are done."""

        done, some = self.rows[finished].to(self.x.device), finished.to(self.x.device)
        self.result[done] = self.x[some]
        estimate = method.last_estimate(self.memory)
        if estimate is not None and self.estimate is not None:
            self.estimate[done] = estimate[some]

    def place(self) -> Memory:
        r"""What a run needs to go on from here."""

        known = {name: getattr(self, name) for name in PLACE}
        return {**known, "nodes": self.nodes.clone()}

    def recall(self, method: Solver, known: Memory) -> None:
        r"""Goes to the place at which a run ended early."""

        for name in PLACE:
            setattr(self, name, known.get(name))
        self.nodes, self.result = known["nodes"].clone(), known["result"].clone()
        self.estimate = None if self.estimate is None else self.estimate.clone()
        self.memory = method.recall(self.memory)
        if len(self.rows) < len(self.nodes):
            self.pick(self.rows)


@dataclass
class _Attempt:
    r"""The result of one attempted step of each sample."""

    step: Step
    t1: Tensor
    last: Tensor
    accept: Tensor


def adapt(method: Solver, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Run:
    r"""Integrates from the first to the last time in steps that meet the tolerances.

    The path at the times in between is interpolated; no steps are shortened for it.
    """

    controller, counter, can = control.controller or Controller(), control.counter, method.can
    record = Record(problem, x, times, control)
    if not control.memory and record.spent(can.calls_at_start * problem.cost):
        record.held = {}  # it begins anew
        record.fail("max_calls", torch.arange(len(x)), x, times[0].expand(len(x)))
        return record.finish(x)
    front = _begun(method, problem.map(counter.watch), x, times, control, record)
    span, price = (times[-1] - times[0]).abs().expand(len(x)), can.calls_per_step * problem.cost
    ended = False
    try:
        while len(front.rows) and not ended:
            record.hold(**front.place())
            if record.spent(int(record.calls.max()) + price):
                record.fail("max_calls", front.rows, front.x, front.t)
                return _finished(record, front.result, front.estimate)
            cost = counter.total
            done = _attempt(method, front, controller, record)
            record.calls[front.rows] += counter.total - cost
            _fill(record, front, done)
            _advance(front, done)
            told = control.callback is not None and bool(done.accept.any())
            if told and record.due(fraction := _fraction(front, span)):
                event = record.event(fraction, front.t, front.x, front.rows)
                ended = says_stop((yield event))
            finished = done.accept & done.last
            front.end(method, finished)
            failed = _retire(record, front, finished, span)
            if bool((finished | failed).any()):
                front.keep(~(finished | failed))
    except (Exception, KeyboardInterrupt) as error:
        give_solution(error, lambda: _interrupted(record))
        raise
    record.held = None
    if ended and len(front.rows):
        record.hold(**front.place())
        record.stop(front.rows, front.x, front.t)
    return _finished(record, front.result, front.estimate)


def _begun(
    method: Solver, watched: Problem, x: Tensor, times: Tensor, control: Control, record: Record
) -> _Front:
    r"""The samples at the start, or where an earlier run ended."""

    t, stop = (end.expand(len(x)) for end in (times[0], times[-1]))
    rows, broken = torch.arange(len(x)), torch.zeros(len(x))
    ends, nodes = watched.sizes(stop), torch.ones(len(x), dtype=torch.int64)
    front = _Front(
        watched, rows, t, stop, ends, t, x, None, control.noise, broken, nodes, x.clone()
    )
    if control.memory:
        record.recall(control.memory["record"])
        front.recall(method, control.memory)
        return front
    controller = control.controller or Controller()
    front.h, front.memory = method.begin(watched, controller, t, stop, x)
    if controller.first_step is not None:
        front.h = (watched.ahead(t, stop, controller.first_step) - t).abs()
    record.calls += control.counter.total
    estimate = method.last_estimate(front.memory)
    front.estimate = None if estimate is None else estimate.clone()
    return front


def _finished(record: Record, result: Tensor, estimate: Tensor | None) -> Solution:
    if record.path is not None:
        ok = record.alive.to(result.device)
        record.path[-1, ok] = result[ok]
    return replace(record.finish(result), estimate=estimate)


def _interrupted(record: Record) -> Solution:
    r"""The solution up to the last attempt, since an interrupt may leave the next one half done."""

    assert record.held is not None
    known = record.held
    record.recall(known["record"])
    record.stop(known["rows"], known["x"], known["t"])
    return _finished(record, known["result"], known["estimate"])


def _attempt(method: Solver, front: _Front, controller: Controller, record: Record) -> _Attempt:
    can, left = method.can, front.stop - front.t
    reach = front.problem.ahead(front.t, front.stop, controller.max_step) - front.t
    front.h = front.h.minimum(reach.abs())
    last = left.abs() <= front.h * (1 + 1e-10)  # leaves no sliver of a step for the end
    t1 = torch.where(last, front.stop, front.t + left.sign() * front.h)
    [plan] = method.plan(front.problem, front.t[None], t1[None], front.x)
    step = method.step(plan, front.x, front.memory, front.noise)
    assert step.error is not None
    ends = front.problem.sizes(torch.stack([front.t, t1]))
    allowed = controller.allowed(front.problem, ends, front.last, front.x, step.x)
    ratio = row_rms(step.error.detach() / allowed)
    accept = ratio <= can.caution.accept  # false where it is NaN
    front.broken = front.broken + ~ratio.isfinite()
    order = torch.as_tensor(can.order if step.order is None else step.order)
    factor = can.caution.factor(ratio, order)
    for error, rival in step.rivals:
        other = can.caution.factor(row_rms(error.detach() / allowed), rival.clamp(min=1))
        possible = (rival > 0) & ratio.isfinite() & (accept | (rival <= order))
        better = possible & (other > factor)
        factor, order = torch.where(better, other, factor), torch.where(better, rival, order)
    front.h = (t1 - front.t).abs() * factor
    if step.order is not None:
        step = step._replace(memory=method.choose(step.memory, order))
        front.memory = method.choose(front.memory, order)
    record.accepted[front.rows] += accept
    record.rejected[front.rows] += ~accept
    return _Attempt(step, t1, last, accept)


def _advance(front: _Front, done: _Attempt) -> None:
    front.t = torch.where(done.accept, done.t1, front.t)
    front.x = row_where(done.accept, done.step.x, front.x)
    front.memory = _mapped(partial(row_where, done.accept), done.step.memory, front.memory)


def _mapped(change: Callable[..., Tensor], *values: object) -> object:
    r"""The result of a function of tensors, or of tuples with the same structure; `None` stays `None`."""

    first = values[0]
    if isinstance(first, Tensor):
        return change(*values)
    if not isinstance(first, tuple):
        return first
    parts = zip(*cast(tuple[tuple[object, ...], ...], values), strict=True)
    make = getattr(first, "_make", tuple)  # of a tuple whose entries have names
    return make(_mapped(change, *some) for some in parts)


def _fraction(front: _Front, span: Tensor) -> float:
    left = (front.stop - front.t).abs() / span[front.rows]
    return 1 - left.sum().item() / len(span)


def _fill(record: Record, front: _Front, done: _Attempt) -> None:
    r"""Writes the path at the times that the accepted steps passed."""

    step, t1, times, nodes = done.step, done.t1, record.times, front.nodes
    if record.path is None or step.interpolate is None:
        return
    due = torch.where(done.accept, _passed(times, front, t1) - nodes[front.rows], 0)
    first = nodes[front.rows] - (due.cumsum(0) - due)
    nodes[front.rows] += due
    rows = torch.arange(len(due)).repeat_interleave(due)
    places = torch.arange(len(rows)) + first[rows]
    for some, place in zip(rows.split(AT_ONCE), places.split(AT_ONCE), strict=True):
        start, samples = front.t[some], front.rows[some]
        there = times[place] if times.ndim == 1 else times[place, samples]
        theta, here = ((there - start) / (t1[some] - start)).to(front.x), some.to(front.x.device)
        states = step.interpolate(align(theta, front.x[here]), here)
        record.path[place.to(here.device), samples.to(here.device)] = states


def _passed(times: Tensor, front: _Front, t1: Tensor) -> Tensor:
    r"""How many of the times each sample has passed by the ends of its step, with shape (B,)."""

    sign = (front.stop - front.t).sign()
    if times.ndim == 1:
        return torch.searchsorted(sign[0] * times, sign * t1, right=True)
    along = (sign * times[:, front.rows]).T.contiguous()
    return torch.searchsorted(along, (sign * t1)[:, None], right=True)[:, 0]


def _retire(record: Record, front: _Front, done: Tensor, span: Tensor) -> Tensor:
    r"""Ends samples that cannot go on, and returns which."""

    limit = (record.control.controller or Controller()).max_steps
    taken = (record.accepted + record.rejected)[front.rows]
    stuck = front.h < SMALLEST * span[front.rows]
    kinds = {
        "nonfinite": (front.broken >= PATIENCE) | (stuck & (front.broken > 0)),
        "min_step": stuck,
        "max_steps": taken >= limit,
    }
    failed = torch.zeros_like(done)
    for kind, where in kinds.items():
        where = where & ~done & ~failed
        if not bool(where.any()):
            continue
        failed |= where
        index = where.to(front.x.device)
        record.fail(kind, front.rows[where], front.x[index], front.t[where])
    return failed
