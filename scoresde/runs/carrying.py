r"""Runs that carry the last estimate of a self-conditioned model from call to call.

The estimate is a part of the memory of a solver's steps. So it is that of the last accepted step in each row, it
leaves with the rows that are done, and a run that ended early goes on with it.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from solvers import Abilities, Problem, Solver
from solvers.control import Control
from solvers.controller import Controller
from solvers.noise.brownian import Brownian
from solvers.problem import StateField
from solvers.solver import Loop, Run, Step

from ..models.self_conditioned import CURE, with_estimate


class _Memory(NamedTuple):
    own: Any  # of the method
    estimate: Tensor


@dataclass
class _Now:
    r"""The estimate at the current call of a run."""

    estimate: Tensor


@dataclass(frozen=True)
class Carrying(Solver):
    r"""Creates a solver whose fields are functions of state and estimate, as :func:`carrying` makes them.

    Arguments:
        method: The solver.
        start: The estimate at the first call, with shape (B, \*).
    """

    method: Solver
    start: Tensor

    def __post_init__(self) -> None:
        can = self.method.can
        if not can.stepwise or can.reversible:
            cause = "is undone from states alone" if can.reversible else "makes calls of its own"
            raise ValueError(
                f"{self.method} {cause}, so it cannot carry the last estimate of a self-conditioned model; use "
                f"another solver, such as 'dpmpp_2m', or {CURE}."
            )

    @property
    def name(self) -> str:
        return self.method.name

    @cached_property
    def can(self) -> Abilities:
        return self.method.can

    def integrate(
        self, problem: Problem, x: Tensor, times: Tensor, control: Control, loop: Loop
    ) -> Run:
        now = _Now(self.start)

        def carried(
            method: Solver, problem: Problem, x: Tensor, times: Tensor, control: Control
        ) -> Run:
            return loop(_Steps(method, self.start, now), problem, x, times, control)

        whole = problem.map(lambda field: partial(_called, field, now))
        return self.method.integrate(whole, x, times, control, carried)


def carrying(problem: Problem, method: Solver, x: Tensor) -> tuple[Problem, Solver]:
    r"""Returns problem and solver of a run that carries the estimate of its model.

    Arguments:
        problem: The problem of the model.
        method: The solver.
        x: The states of the process at the start, which set shape, dtype and device.
    """

    return problem.map(_paired), Carrying(method, torch.zeros_like(x))


def _paired(field: StateField) -> StateField:
    r"""Returns a field as a function of state and estimate, whose values are both."""

    def called(x: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor | None]:
        return with_estimate(lambda: field(x), estimate)

    return cast(StateField, called)


def _called(field: StateField, now: _Now, x: Tensor) -> Tensor:
    value, now.estimate = cast(Any, field)(x, now.estimate)
    return value


@dataclass(frozen=True)
class _Steps(Solver):
    r"""The steps of a method in one run, whose memory holds the estimate."""

    method: Solver
    start: Tensor
    now: _Now

    @property
    def name(self) -> str:
        return self.method.name

    @cached_property
    def can(self) -> Abilities:
        return self.method.can

    def calls(self, steps: int) -> int:
        return self.method.calls(steps)

    def plan(self, problem: Problem, t0: Tensor, t1: Tensor, x: Tensor) -> Any:
        return self.method.plan(problem, t0, t1, x)

    def step(self, plan: object, x: Tensor, memory: _Memory, noise: Brownian | None) -> Step:
        self.now.estimate = memory.estimate
        step = self.method.step(plan, x, memory.own, noise)
        return step._replace(memory=_Memory(step.memory, self.now.estimate))

    def resume(self, x: Tensor, companion: Tensor | None) -> tuple[Tensor, _Memory]:
        x, own = self.method.resume(x, companion)
        return x, _Memory(own, self.start)

    def recall(self, memory: Any) -> _Memory:
        return _Memory(self.method.recall(memory[0]), memory[1])

    def begin(
        self, problem: Problem, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, _Memory]:
        self.now.estimate = self.start
        h, own = self.method.begin(problem, controller, t0, stop, x)
        return h, _Memory(own, self.now.estimate)

    def choose(self, memory: _Memory, order: Tensor) -> _Memory:
        return memory._replace(own=self.method.choose(memory.own, order))

    def last_estimate(self, memory: _Memory) -> Tensor:
        return memory.estimate
