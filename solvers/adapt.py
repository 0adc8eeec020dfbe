r"""The loop under tolerances: every sample has its own time, step and end.

A sample that is done leaves the batch, so that the others do not wait for it and it does not
cost calls. Row i of a batch takes the steps it takes alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .calls import counting
from .controller import Controller
from .problem import Problem
from .record import Record
from .shapes import align, row_where
from .solution import Solution
from .solver import Control, Method, Step

SMALLEST = 1e-10  # of the span: a step below it means that no step will do
PATIENCE = 10  # attempts without a finite error: steps that creep up to where a model breaks


@dataclass
class _Front:
    r"""The samples under way: their rows, times, step sizes, states and memories."""

    problem: Problem
    rows: Tensor
    t: Tensor
    h: Tensor
    x: Tensor
    memory: Tensor | None
    broken: Tensor  # how many attempts gave no finite error

    def keep(self, mask: Tensor) -> None:
        index = mask.nonzero()[:, 0]
        self.problem = self.problem.subset(index)
        self.rows, self.t, self.h = self.rows[index], self.t[index], self.h[index]
        self.broken = self.broken[index]
        self.x = self.x[index.to(self.x.device)]
        if self.memory is not None:
            self.memory = self.memory[index.to(self.x.device)]


def adapt(
    method: Method, problem: Problem, x: Tensor, times: Tensor, control: Control
) -> Solution:
    r"""Integrates from the first to the last time in steps that meet the tolerances.

    The path at the times between comes from interpolation, not from shorter steps.
    """

    controller = control.controller or Controller()
    record, result = Record(problem, x, times, control), x.clone()
    nodes = torch.ones(len(x), dtype=torch.int64)  # the next time of the grid of each sample
    with counting() as counter:
        watched = problem.map(counter.watch)
        t, rows = times[:1].expand(len(x)), torch.arange(len(x))
        if record.spent(2):
            _stop(record, rows, x, t)
            return record.finish(x)
        h, memory = controller.first(watched, method.order, t, times[-1], x)
        record.calls += counter.total
        price = method.calls_per_step * counter.total // 2  # of a step, by the two evaluations
        front = _Front(watched, rows, t, h, x, memory, torch.zeros(len(x)))
        while len(front.rows):
            if record.spent(int(record.calls.max()) + price):
                _stop(record, front.rows, front.x, front.t)
                break
            cost = counter.total
            accept, last, step, t1 = _attempt(method, front, times[-1], controller, record)
            record.calls[front.rows] += counter.total - cost
            _fill(record, nodes, front, accept, step, t1)
            _advance(front, accept, step, t1)
            record.tell(front.t, front.x, front.rows)
            done = accept & last
            result[front.rows[done].to(x.device)] = front.x[done.to(x.device)]
            failed = _retire(record, front, done, (times[-1] - times[0]).abs())
            if bool((done | failed).any()):
                front.keep(~(done | failed))
    if record.path is not None:
        record.path[-1] = result
    return record.finish(result)


def _attempt(
    method: Method, front: _Front, stop: Tensor, controller: Controller, record: Record
) -> tuple[Tensor, Tensor, Step, Tensor]:
    left = stop - front.t
    last = left.abs() <= front.h * (1 + 1e-10)  # no sliver of a step is left for the end
    t1 = torch.where(last, stop, front.t + left.sign() * front.h)
    [plan] = method.plan(front.problem, front.t[None], t1[None], front.x)
    step = method.step(plan, front.x, front.memory, None)
    assert step.error is not None
    ratio = controller.ratio(step.error, front.x, step.x)
    accept = ratio <= 1  # not where it is NaN
    front.broken = front.broken + ~ratio.isfinite()
    front.h = controller.resize((t1 - front.t).abs(), ratio, method.order)
    record.accepted[front.rows] += accept
    record.rejected[front.rows] += ~accept
    return accept, last, step, t1


def _advance(front: _Front, accept: Tensor, step: Step, t1: Tensor) -> None:
    front.t = torch.where(accept, t1, front.t)
    front.x = row_where(accept, step.x, front.x)
    if step.memory is None or front.memory is None:
        front.memory = None
    else:
        front.memory = row_where(accept, step.memory, front.memory)


def _fill(
    record: Record, nodes: Tensor, front: _Front, accept: Tensor, step: Step, t1: Tensor
) -> None:
    r"""Writes the path at the times that the accepted steps went past."""

    if record.path is None or step.interpolate is None:
        return
    times, device = record.times, front.x.device
    sign = (times[-1] - times[0]).sign()
    while True:
        node = nodes[front.rows].clamp(max=len(times) - 1)
        due = accept & (nodes[front.rows] < len(times)) & (sign * (times[node] - t1) <= 0)
        if not bool(due.any()):
            return
        theta = ((times[node] - front.t) / (t1 - front.t)).to(device, front.x.dtype)
        states = step.interpolate(align(theta, front.x))
        record.path[node[due].to(device), front.rows[due].to(device)] = states[due.to(device)]
        nodes[front.rows[due]] += 1


def _stop(record: Record, rows: Tensor, x: Tensor, t: Tensor) -> None:
    r"""Ends all samples under way, since the budget is spent."""

    record.fail("max_calls", rows, x, record.problem.describe(t[0].item()))


def _retire(record: Record, front: _Front, done: Tensor, span: Tensor) -> Tensor:
    r"""Ends samples that cannot go on, and returns which."""

    limit = (record.control.controller or Controller()).max_steps
    taken = (record.accepted + record.rejected)[front.rows]
    stuck = front.h < SMALLEST * span
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
        first = front.t[where][0].item()
        index = where.to(front.x.device)
        record.fail(kind, front.rows[where], front.x[index], record.problem.describe(first))
    return failed
