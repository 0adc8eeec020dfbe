r"""Solvers that are known by one step: the loops do the rest."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..controller import Caution, Controller
from ..noise.brownian import Brownian
from ..problem import Problem
from ..solution import Solution
from ..solver import Control, Solver, Step
from .adaptive import adapt
from .fixed_grid import march


class Stepper(Solver):
    r"""Abstract solver that plans the coefficients of its steps, then takes them.

    Its parts are those of :class:`solvers.solver.Method`.
    """

    caution: ClassVar[Caution] = Caution()
    calls_at_start: ClassVar[int] = 2  # evaluations before the first step under tolerances

    def resume(self, x: Tensor, companion: Tensor | None) -> tuple[Tensor, Any]:
        r"""Returns the state and the memory at the start of a grid."""

        return x, None

    def carry(self, x: Tensor, memory: Any) -> Tensor | None:
        r"""Returns what the run is undone from, with shape (B, 2, *), of reversible methods."""

        return None

    @abstractmethod
    def plan(self, problem: Any, t0: Tensor, t1: Tensor, x: Tensor) -> Sequence[Any]:
        r"""Returns the coefficients of n steps."""

    @abstractmethod
    def step(self, plan: Any, x: Tensor, memory: Any, noise: Brownian | None) -> Step:
        r"""Takes the step of some coefficients."""

    def begin(
        self, problem: Any, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, Any]:
        r"""Returns the sizes of the first steps under tolerances, and the memory at the start."""

        return controller.first(problem, self.order, t0, stop, x)

    def choose(self, memory: Any, order: Tensor) -> Any:
        r"""Returns the memory with the order of the next step of each row."""

        return memory

    def integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        loop = march if control.controller is None else adapt
        return loop(self, problem, x, times, control)
