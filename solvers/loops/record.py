r"""The mutable record of one run, from which its solution is built."""

import math
from time import monotonic

import numpy as np
import torch
from torch import Tensor

from ..control import Control, Event, Memory
from ..errors import Failure, SolverError
from ..problem import Problem
from ..shapes import align
from ..solver import Solution

PER_SAMPLE = ("reached", "calls", "accepted", "rejected", "alive")


def says_stop(answer: object) -> bool:
    r"""Whether a callback returned a truth value that is true; other answers are ignored."""

    if isinstance(answer, Tensor) and answer.dtype == torch.bool and answer.numel() > 1:
        raise TypeError(
            f"callback must return one truth value or nothing, but returned {answer.numel()}; "
            "reduce them by .any() or .all()."
        )
    truths = isinstance(answer, bool | np.bool_)
    return bool(answer) if truths or getattr(answer, "dtype", None) == torch.bool else False


class Record:
    r"""The state of each sample of a run so far."""

    def __init__(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> None:
        self.problem, self.x, self.times, self.control = problem, x, times, control
        self.calls, self.accepted, self.rejected = torch.zeros(3, len(x), dtype=torch.int64)
        self.reached = times[-1].expand(len(x)).clone()
        self.status = ["ok"] * len(x)
        self.alive = torch.ones(len(x), dtype=torch.bool)
        self.any_alive = self.all_alive = True
        self.told = -math.inf
        self.held: Memory | None = None  # what the run would need to go on
        self.path = x.new_full((len(times), *x.shape), torch.nan) if control.path else None
        if self.path is not None:
            self.path[0] = x

    def due(self, fraction: float) -> bool:
        r"""Whether progress at this fraction of the run is to be reported."""

        control, now = self.control, monotonic()
        if control.callback is None or (fraction < 1 and now < self.told + control.pause):
            return False
        self.told = now
        return True

    def event(self, fraction: float, time: Tensor, x: Tensor, rows: Tensor | None = None) -> Event:
        r"""Returns the event of accepted steps.

        Arguments:
            fraction: The fraction of the run that is done.
            time: The times of the states.
            x: The states.
            rows: The samples that they belong to. By default, all samples.
        """

        calls = self.calls if rows is None else self.calls[rows]
        return Event(fraction, time, x, rows, calls.clone())

    def keep(self, step: int, x: Tensor) -> None:
        r"""Keeps the state after a grid step, if the path is asked for."""

        if self.path is not None:
            self.path[step] = x
            if not self.all_alive:  # a sample that failed has no path from there on
                self.path[step, ~self.alive.to(x.device)] = torch.nan

    def count(self, calls: int, steps: int) -> None:
        r"""Records the calls and steps of all samples that are still running."""

        if self.all_alive:
            self.calls.fill_(calls)
            self.accepted.fill_(steps)
        else:
            self.calls[self.alive], self.accepted[self.alive] = calls, steps

    def spent(self, calls: int) -> bool:
        r"""Whether a number of further calls would exceed the budget."""

        limit = self.control.max_calls
        return limit is not None and calls > limit

    def fail(self, kind: str, rows: Tensor, x: Tensor, time: Tensor, words: str = "") -> None:
        r"""Ends samples that failed, with the states they had.

        Raises:
            SolverError: If failures are to raise.
        """

        if not len(rows):
            return
        self.stop(rows, x, time, kind)
        words = words or self.problem.describe(time.flatten()[0].item())
        if self.control.on_failure == "raise":
            raise SolverError(Failure(kind, tuple(rows.tolist()), words), self.solution())

    def stop(self, rows: Tensor, x: Tensor, time: Tensor, status: str = "stopped") -> None:
        r"""Ends samples with the states they have, because the callback stops them or they failed.

        Arguments:
            rows: The samples.
            x: Their states.
            time: The times of these, with shape () or one per sample concerned.
            status: Why.
        """

        self.reached[rows] = time
        self.x = self.x.clone()
        self.x[rows.to(x.device)] = x
        for row in rows.tolist():
            self.status[row] = status
        self.alive[rows] = False
        self.any_alive, self.all_alive = bool(self.alive.any()), not len(rows) and self.all_alive

    def hold(self, **place: object) -> None:
        r"""Holds what the run needs to go on from here, unless it keeps gradients.

        Arguments:
            place: Where the loop is.
        """

        if self.control.grad == "none":
            known = {name: getattr(self, name).clone() for name in PER_SAMPLE}
            rest = {"x": self.x, "status": tuple(self.status), "path": self.path}
            self.held = {**place, "record": {**known, **rest}}

    def recall(self, known: Memory) -> None:
        r"""Goes back to what :meth:`hold` held."""

        for name in (*PER_SAMPLE, "x", "path"):
            setattr(self, name, None if known[name] is None else known[name].clone())
        self.status = list(known["status"])
        self.any_alive, self.all_alive = bool(self.alive.any()), bool(self.alive.all())

    def finish(self, x: Tensor) -> Solution:
        r"""Returns the solution, given the final states of all rows; failed ones keep theirs."""

        alive = self.alive.to(x.device)
        self.x = x if bool(self.alive.all()) else torch.where(align(alive, x), x, self.x)
        return self.solution()

    def solution(self) -> Solution:
        r"""Returns the solution so far."""

        return Solution(
            x=self.x,
            times=self.times,
            reached=self.reached,
            calls=self.calls,
            accepted=self.accepted,
            rejected=self.rejected,
            status=tuple(self.status),
            path=self.path,
            memory=self.held,
        )
