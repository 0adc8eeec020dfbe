r"""The interface of a solver: settings, abilities, and steps that a loop takes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .abilities import Abilities
from .control import Control, Run
from .controller import Controller
from .noise.brownian import Brownian
from .problem import Problem
from .settings import check_settings

GRADIENTS = ("none", "backprop", "checkpoint", "adjoint")


class Step(NamedTuple):
    r"""The result of one step.

    Arguments:
        x: The state at its end.
        memory: What the next step needs; for adaptive steps, a tensor or a tuple of tensors with leading size B.
        error: An estimate of the local error, with the state's shape.
        interpolate: A function that returns the state at a fraction of the step, with shape (B, 1, ...).
        order: The order of the step in each row, if rows differ.
        rivals: The errors of other orders, and these orders, which are 0 where there is none.

    Examples:
        >>> decay, t = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 0.5])
        >>> solver, x = solvers.get("euler"), torch.ones(1, 1)
        >>> solver.step(solver.plan(decay, t[:1], t[1:], x)[0], x, None, None).x
        tensor([[0.5000]])
    """

    x: Tensor
    memory: Any = None
    error: Tensor | None = None
    interpolate: Callable[[Tensor], Tensor] | None = None
    order: Tensor | None = None
    rivals: Sequence[tuple[Tensor, Tensor]] = ()


class Solver(ABC):
    r"""Abstract solver. It holds settings, never a problem or a state.

    It states its abilities, plans the coefficients of its steps, and takes a step when a loop asks for it. The
    contents of its plans and memories are its own choice. Its abilities are attributes, too: `solver.order` is
    `solver.can.order`.

    Attributes:
        name: The name of the solver.

    Examples:
        >>> solver = solvers.get("dpm_2")
        >>> solver.name, solver.order, solver.calls(10)
        ('dpm_2', 2, 20)
    """

    name: str

    solves: type[Problem]
    order: float
    cold_order: float
    calls_per_step: int
    one_step: bool
    unstable: str
    stochastic: bool
    one_normal: bool
    takes_eta: bool
    own_noise: bool
    profile: str
    adaptive: bool
    fixed: bool
    even: bool
    stepwise: bool
    adjoint: bool
    form: str
    reversible: bool
    exact: bool
    block: int
    limit: str
    severed: str

    def __post_init__(self) -> None:
        if type(self).__module__.startswith(
            f"{__package__}."
        ):  # whose settings have the catalogue's meaning
            check_settings(self)

    @property
    @abstractmethod
    def can(self) -> Abilities:
        r"""The abilities of the solver."""

    def __getattr__(self, name: str) -> object:
        if isinstance(own := getattr(type(self), name, None), property) and own.fget:
            return own.fget(self)  # it failed, and raises the reason again
        known = not name.startswith("_") and hasattr(Abilities, name)
        if known or name in Abilities.__dataclass_fields__:
            return getattr(self.can, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def undone_by(self) -> "Solver":
        r"""The solver that leads back when run backwards over the same times."""

        return self

    def calls(self, steps: int) -> int:
        r"""Returns the number of drift evaluations on a grid with the given number of steps."""

        return steps * self.can.calls_per_step

    def plan(self, problem: Problem, t0: Tensor, t1: Tensor, x: Tensor) -> Sequence[object]:
        r"""Returns the coefficients of n steps, computed at once before any is taken.

        Arguments:
            problem: The problem.
            t0: The times at which steps start, with shape (n,), or (n, B) for one per row.
            t1: The times at which steps end.
            x: A state, which sets shape, dtype and device.
        """

        raise NotImplementedError(f"{self} has no steps that a loop or another solver could take.")

    def step(self, plan: object, x: Tensor, memory: object, noise: Brownian | None) -> Step:
        r"""Takes the step with the given coefficients."""

        raise NotImplementedError(f"{self} has no steps that a loop or another solver could take.")

    def resume(self, x: Tensor, companion: Tensor | None) -> tuple[Tensor, object]:
        r"""Returns the state and the memory at the start of a grid."""

        return x, None

    def carry(self, x: Tensor, memory: object) -> Tensor | None:
        r"""Returns the pair of states from which a reversible run is undone, with shape (B, 2, *)."""

        return None

    def begin(
        self, problem: Problem, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, object]:
        r"""Returns the sizes of the first adaptive steps, and the memory at the start."""

        return controller.first(problem, self.order, t0, stop, x)

    def choose(self, memory: object, order: Tensor) -> object:
        r"""Returns the memory with the order of the next step of each row."""

        return memory

    def integrate(
        self, problem: Problem, x: Tensor, times: Tensor, control: Control, loop: "Loop"
    ) -> Run:
        r"""Returns the run from the first to the last of the times.

        A loop takes the steps. Solvers with a loop of their own, or other coordinates, override this method.
        """

        return loop(self, problem, x, times, control)

    def __str__(self) -> str:
        return self.name


Loop = Callable[[Solver, Problem, Tensor, Tensor, Control], Run]


def check_one_step(solver: str, method: Solver) -> None:
    r"""Refuses a multistep method for a solver that needs a one-step method."""

    if not method.one_step:
        raise ValueError(
            f"{solver} needs a one-step method, but the steps of {method} use those before them; pass one "
            "such as 'ddim' or 'dpm_2'."
        )


def check_gradients(solver: Solver, grad: str) -> None:
    r"""Refuses a gradient mode that does not exist, at all or for this solver."""

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
        raise ValueError(f"grad={grad!r} cannot differentiate {solver}, {solver.severed}.")
