r"""Solvers that are known by one step: the loops do the rest."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .adapt import adapt
from .brownian import Brownian
from .march import march
from .problem import Problem
from .solution import Solution
from .solver import Control, Solver, Step


class Stepper(Solver):
    r"""Abstract solver that plans the coefficients of its steps, then takes them."""

    @abstractmethod
    def plan(self, problem: Any, t0: Tensor, t1: Tensor, x: Tensor) -> Sequence[Any]:
        r"""Returns the coefficients of n steps. See :meth:`solvers.solver.Method.plan`."""

    @abstractmethod
    def step(self, plan: Any, x: Tensor, memory: Any, noise: Brownian | None) -> Step:
        r"""Takes the step of some coefficients."""

    def integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        loop = march if control.controller is None else adapt
        return loop(self, problem, x, times, control)
