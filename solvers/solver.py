r"""What a solver is: settings, and a way to advance a problem along a grid of times."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from .controller import Caution, Controller
from .doors.values import as_number
from .noise.brownian import Brownian
from .problem import Problem
from .solution import Solution

GRADIENTS = ("none", "backprop", "checkpoint", "adjoint")


class Event(NamedTuple):
    r"""What a callback is told after each accepted step.

    Arguments:
        fraction: The share of the span that is done, averaged over the samples, in [0, 1].
        time: The times reached, with shape () or one per row.
        x: The states there.
        rows: The rows they belong to, those still under way, or `None` for all.
        calls: The network calls so far, of each of these rows.
        denoised: The last estimate of the clean data that the solver saw, where there is one.
    """

    fraction: float
    time: Tensor
    x: Tensor
    rows: Tensor | None = None
    calls: Tensor | None = None
    denoised: Tensor | None = None


REPEATS = 10_000  # of what a step does
Range = tuple[Callable[[float], bool], str]
SETTINGS: dict[str, Range] = {
    "amount": (lambda v: 0 <= v < math.inf, "a finite number >= 0"),
    "low": (lambda v: 0 <= v < math.inf, "a finite number >= 0"),
    "high": (lambda v: v >= 0, "a number >= 0"),
    "noise": (lambda v: 0 <= v <= 10, "in [0, 10]"),
    "corrections": (lambda v: 1 <= v <= REPEATS, f"in [1, {REPEATS}]"),
    "ratio": (lambda v: 0 < v < 1, "between 0 and 1"),
    "repeats": (lambda v: 1 <= v <= REPEATS, f"at least 1 and at most {REPEATS}"),
    "tau": (lambda v: 0 < v < 2, "between 0 and 2"),
    "iterations": (lambda v: 1 <= v <= REPEATS, f"in [1, {REPEATS}]"),
    "depth": (lambda v: 0 <= v <= REPEATS, f"in [0, {REPEATS}]"),
    "average": (lambda v: 1 <= v <= REPEATS, f"in [1, {REPEATS}]"),
    "mix": (lambda v: 0.5 < v <= 1, "in (1/2, 1]"),
    "block": (lambda v: 0 <= v <= REPEATS, f"in [0, {REPEATS}]"),
}


def check_settings(solver: object) -> None:
    r"""Refuses settings out of the range in which a method is what it is called."""

    for name, (fits, words) in SETTINGS.items():
        where = f"{name} of {str(solver).split(':')[0]}"
        value = as_number(where, getattr(solver, name, None))
        if value is not None and not fits(value):
            raise ValueError(f"{where} must be {words}, but is {value:.7g}.")


@dataclass(frozen=True)
class Control:
    r"""What a run is asked for beside its problem and grid.

    Arguments:
        controller: What chooses the steps. By default, the grid does.
        noise: The Brownian motion of a stochastic method.
        path: Whether to keep the states at all times of the grid.
        callback: A function that is told about each accepted step, and ends the run if it returns
            a truth value that is true.
        pause: The least number of seconds between two calls of it, but for the last step.
        max_calls: The largest number of network calls of a sample.
        on_failure: Whether a failure raises, or ends the samples concerned.
        grad: How gradients are to be found, if at all: "backprop", "checkpoint" or "adjoint".
        parameters: What an adjoint is asked for beside the start.
        companion: What a reversible method carried at the end of the run that is to be undone.
        seam: What becomes of the state between two steps on a grid, given the number of steps done.
    """

    controller: Controller | None = None
    noise: Brownian | None = None
    path: bool = False
    callback: Callable[[Event], object] | None = None
    pause: float = 0.0
    max_calls: int | None = None
    on_failure: Literal["raise", "partial"] = "raise"
    grad: str = "none"
    parameters: tuple[Tensor, ...] = ()
    companion: Tensor | None = None
    seam: Callable[[int, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.max_calls is not None and self.max_calls < 1:
            raise ValueError(f"max_calls must be at least 1, but is {self.max_calls}.")
        if self.on_failure not in ("raise", "partial"):
            raise ValueError(
                f"on_failure must be 'raise' or 'partial', but is {self.on_failure!r}."
            )


class Solver(ABC):
    r"""Abstract solver. It holds settings, never a problem or a state.

    Attributes:
        name: What users call it.
        solves: The kind of problem it takes: ODE, SDE or SemiLinear.
        order: The global error is :math:`O(h^{order})`; for stochastic methods, the strong one
            for additive noise.
        stochastic: Whether it adds noise.
        one_normal: Whether one normal number per entry and step is all the noise it takes.
        takes_eta: Whether the amount of noise is that of the problem.
        adaptive: Whether it can choose its own steps, given tolerances.
        fixed: Whether it can follow a grid.
        calls_per_step: The evaluations of the drift in a step; :meth:`calls` knows of the start.
        even: Whether it needs steps of equal size.
        adjoint: Whether it can integrate its adjoint equation.
        form: The linear part that it wants of a semi-linear problem.
        profile: How the noise that it wants depends on the noise level.
        reversible: Whether its runs end with a companion, from which they can be undone.
        exact: Whether that holds to the last bit.
        block: How many rows it integrates at once, always as many; 0 if that does not matter.
        limit: What a state that is no longer finite may mean beside the usual, in words.
        severed: Why no gradient flows through its steps, and what to use, in words; empty if it does.
    """

    name: str
    solves: ClassVar[type[Problem]]
    order: float
    stochastic: bool = False
    one_normal: bool = True
    takes_eta: bool = True
    adaptive: bool = False
    fixed: bool = True
    calls_per_step: int
    even: bool = False
    adjoint: bool = False
    form: str = "data"
    profile: str = "constant"
    reversible: bool = False
    exact: bool = False
    block: int = 0
    limit: str = ""
    severed: str = ""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def undone_by(self) -> "Solver":
        r"""The solver whose run over the same times backwards leads back."""

        return self

    @property
    def cold_order(self) -> float:
        r"""The order on an even grid, if the first or last steps keep it below `order`."""

        return self.order

    @abstractmethod
    def integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        r"""Advances the state from the first to the last of the times."""

    def calls(self, steps: int) -> int:
        r"""Returns the evaluations of the drift on a grid of some steps."""

        return steps * self.calls_per_step

    def __str__(self) -> str:
        return self.name


def check_gradients(solver: Solver, grad: str) -> None:
    r"""Refuses a way to gradients that does not exist, for a solver or at all."""

    if grad not in GRADIENTS:
        raise ValueError(f"grad must be one of {', '.join(GRADIENTS)}, but is {grad!r}.")
    if grad == "none":
        return
    if torch.is_inference_mode_enabled():
        raise ValueError(
            f"grad={grad!r} has no effect inside torch.inference_mode(), where nothing has a gradient; "
            "make this call outside of it."
        )
    if grad == "adjoint" and not solver.adjoint:
        raise ValueError(
            f"grad='adjoint' is for the methods of torchdiffeq, and {solver} has no adjoint; use 'checkpoint', "
            "which takes as little memory and is exact."
        )
    if grad != "adjoint" and solver.severed:
        raise ValueError(f"grad={grad!r} has no way through {solver}, {solver.severed}.")


class Step(NamedTuple):
    r"""The outcome of one step.

    Arguments:
        x: The state at its end.
        memory: What the next step wants to know: under tolerances, a tensor or a tuple of tensors
            of leading size B.
        error: An estimate of the local error, like the state.
        interpolate: The state at a fraction of the step, with shape (B, 1, ...).
        order: The order of the step in each row, where rows differ.
        rivals: Errors of other orders and these orders, which are 0 where there is none.
    """

    x: Tensor
    memory: Any = None
    error: Tensor | None = None
    interpolate: Callable[[Tensor], Tensor] | None = None
    order: Tensor | None = None
    rivals: Sequence[tuple[Tensor, Tensor]] = ()


class Method(Protocol):
    r"""What the loops ask of a method that advances step by step."""

    @property
    def order(self) -> float: ...

    @property
    def calls_per_step(self) -> int: ...

    @property
    def calls_at_start(self) -> int: ...

    @property
    def limit(self) -> str: ...

    def calls(self, steps: int) -> int:
        r"""Returns the evaluations of the drift on a grid of some steps."""

    @property
    def caution(self) -> Caution: ...

    def resume(self, x: Tensor, companion: Tensor | None) -> tuple[Tensor, Any]:
        r"""Returns the state and the memory at the start."""

    def carry(self, x: Tensor, memory: Any) -> Tensor | None:
        r"""Returns what the run is undone from, with shape (B, 2, *)."""

    def plan(self, problem: Any, t0: Tensor, t1: Tensor, x: Tensor) -> Sequence[Any]:
        r"""Returns the coefficients of n steps, worked out at once before any is taken.

        Arguments:
            problem: The problem.
            t0: The times at which steps start, with shape (n,), or (n, B) for one per row.
            t1: The times at which steps end.
            x: A state, which gives shape, dtype and device.
        """

    def begin(
        self, problem: Any, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, Any]:
        r"""Returns the sizes of the first steps under tolerances, and the memory at the start."""

    def step(self, plan: Any, x: Tensor, memory: Any, noise: Brownian | None) -> Step:
        r"""Takes the step of some coefficients."""

    def choose(self, memory: Any, order: Tensor) -> Any:
        r"""Returns the memory with the order of the next step of each row."""
