r"""What a solver is: settings, abilities, and steps that a loop takes; and the solution that it makes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import Tensor

from .abilities import Abilities
from .control import Control, Event, Memory
from .controller import Controller
from .doors.signatures import checked
from .noise.brownian import Brownian
from .problem import Problem
from .rows import Rows, row_numbers
from .settings import check_settings


class Step(NamedTuple):
    r"""The result of one step.

    Arguments:
        x: The state at its end.
        memory: What the next step needs; for adaptive steps, a tensor or a tuple of tensors with leading size B.
        error: An estimate of the local error, with the state's shape.
        interpolate: A function of fractions of the step, with shape (n, 1, ...), and of the rows that they belong
            to, with shape (n,), that returns the states there.
        order: The order of the step in each row, if rows differ.
        rivals: The errors of other orders, and these orders, which are 0 where there is none.

    Examples:
        >>> decay, t = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 0.5])
        >>> solver, x = solvers.get("euler"), torch.ones(1, 1)
        >>> solver.step(solver.plan(decay, t[:1], t[1:], x)[0], x, None, None).x
        tensor([[0.5000]])
    """

    x: Tensor
    memory: Any = None  # which its method alone knows
    error: Tensor | None = None
    interpolate: Callable[[Tensor, Tensor], Tensor] | None = None
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
    gaussian: bool
    takes_eta: bool
    own_noise: bool
    profile: str
    adaptive: bool
    fixed: bool
    even: bool
    open: bool
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

    if not TYPE_CHECKING:  # which know the attributes above, and are to tell of any other

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

    def last_estimate(self, memory: Any) -> Tensor | None:
        r"""Returns the estimate of the clean data that a memory holds for the next call, if it holds one."""

        return None

    def recall(self, memory: Any) -> object:
        r"""Returns the memory of a step, given its tensors in nested tuples, as a file holds them."""

        return memory

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
    ) -> "Run":
        r"""Returns the run from the first to the last of the times.

        A loop takes the steps. Solvers with a loop of their own, or other coordinates, override this method.
        """

        return loop(self, problem, x, times, control)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Solution:
    r"""The result of an integration.

    Arguments:
        x: The final state, with shape (B, *). A row that failed holds its last finite state.
        times: The grid, in float64, with shape (n + 1,), or (n + 1, B) for one per sample.
        reached: The time of the final state of each sample, with shape (B,).
        calls: The number of network calls of each sample (NFE), with shape (B,).
        accepted: The number of accepted steps of each sample, with shape (B,).
        rejected: The number of rejected steps of each sample, with shape (B,).
        status: "ok", "stopped" by the callback or an interrupt, "nonfinite", "min_step", "max_steps",
            "max_calls" or "diverged" for each sample.
        path: The states at the grid times, with shape (n + 1, B, *), if asked for.
        provenance: A record of how it was made: solver, grid, seed, versions.
        companion: The pair of states from which a reversible method goes back, in its own coordinates, with
            shape (B, 2, *).
        solver: The :class:`solvers.Solver` that made it, which is needed for the way back.
        memory: What a run that ended early needs to go on, in its own coordinates.
        log_density: The log-density of the last state of the run in nats, with shape (B,), in float64, if it was
            asked for; NaN for samples that failed.
        log_density_error: Its possible error in nats, with shape (B,).
        estimate: The last estimate of the clean data, with shape (B, *), if the model's next call needs it.

    Examples:
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 0.5, 1.0])
        >>> s = solvers.solve(decay, torch.ones(3, 1), times, "euler")
        >>> s.x.flatten().tolist(), s.calls.tolist(), s.ok
        ([0.25, 0.25, 0.25], [2, 2, 2], True)
    """

    x: Tensor
    times: Tensor
    reached: Tensor
    calls: Tensor
    accepted: Tensor
    rejected: Tensor
    status: tuple[str, ...]
    path: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)  # as json.loads returns it
    companion: Tensor | None = None
    solver: Solver | None = None
    memory: Memory | None = None
    log_density: Tensor | None = None
    log_density_error: Tensor | None = None
    estimate: Tensor | None = None

    @property
    def ok(self) -> bool:
        r"""Whether every sample reached the end."""

        return all(status == "ok" for status in self.status)

    @staticmethod
    @checked
    def stack(parts: list["Solution"]) -> "Solution":
        r"""Returns the solution of all samples, from the solutions of consecutive batches."""

        if not parts:
            raise ValueError("parts must hold at least one solution, but is empty.")
        first = parts[0]
        if len(parts) == 1:
            return first
        paths = [part.path for part in parts if part.path is not None]
        pairs = [part.companion for part in parts if part.companion is not None]
        return replace(
            first,
            x=torch.cat([part.x for part in parts]),
            reached=torch.cat([part.reached for part in parts]),
            calls=torch.cat([part.calls for part in parts]),
            accepted=torch.cat([part.accepted for part in parts]),
            rejected=torch.cat([part.rejected for part in parts]),
            times=torch.cat([p.times for p in parts], 1) if first.times.ndim > 1 else first.times,
            status=tuple(status for part in parts for status in part.status),
            path=torch.cat(paths, dim=1) if paths else None,
            companion=torch.cat(pairs) if len(pairs) == len(parts) else None,
            memory=None,
            log_density=_joined([part.log_density for part in parts]),
            log_density_error=_joined([part.log_density_error for part in parts]),
            estimate=_estimates(parts),
        )

    def rows(self, index: Rows) -> "Solution":
        r"""Returns the solution of the given samples.

        Arguments:
            index: The indices of the samples, where negative ones count from the end; or a single index, a
                slice, or a Boolean for each sample. A single index gives a solution of one sample.

        Raises:
            TypeError, ValueError, IndexError: If these are not indices of samples, or there are none.
        """

        index = row_numbers(index, len(self.x))
        here = index.to(self.x.device)
        made = dict(self.provenance)
        if made.get("seeds"):
            made["seeds"] = [made["seeds"][i] for i in index.tolist()]
        elif "first_index" in made:  # the indices that they were drawn by
            known = made.get("rows") or range(
                made["first_index"], made["first_index"] + len(self.x)
            )
            made["rows"] = [known[i] for i in index.tolist()]
        if isinstance(made.get("eta"), list):  # one amount of noise per sample
            made["eta"] = [made["eta"][i] for i in index.tolist()]
        return replace(
            self,
            x=self.x[here],
            times=self.times if self.times.ndim == 1 else self.times[:, index],
            reached=self.reached[index],
            calls=self.calls[index],
            accepted=self.accepted[index],
            rejected=self.rejected[index],
            status=tuple(self.status[i] for i in index.tolist()),
            path=None if self.path is None else self.path[:, here],
            companion=None if self.companion is None else self.companion[here],
            provenance=made,
            memory=None,
            log_density=None if self.log_density is None else self.log_density[here],
            log_density_error=None if (e := self.log_density_error) is None else e[here],
            estimate=None if self.estimate is None else self.estimate[here],
        )

    def __len__(self) -> int:
        return len(self.x)

    @overload
    def __getitem__(self, index: str) -> Tensor: ...

    @overload
    def __getitem__(self, index: Rows) -> "Solution": ...

    def __getitem__(self, index: Rows | str) -> "Solution | Tensor":
        if not isinstance(index, str):
            return self.rows(index)
        if index not in self.parts:
            known = ", ".join(self.parts) or "none"
            raise KeyError(f"the state has no part {index!r}; its parts are: {known}.")
        return self.parts[index]

    @property
    def parts(self) -> dict[str, Tensor]:
        r"""The named parts of the final state, each with shape (B, \*), if it consists of such parts."""

        shapes: dict[str, list[int]] = self.provenance.get("parts", {})
        pieces = self.x.split([math.prod(shape) for shape in shapes.values()], 1) if shapes else ()
        return {
            name: piece.reshape(len(self.x), *shape)
            for piece, (name, shape) in zip(pieces, shapes.items(), strict=True)
        }

    def __repr__(self) -> str:
        solver = self.provenance.get("solver", "solver")
        calls = _span(self.calls)
        stopped = sum(status == "stopped" for status in self.status)
        failed = sum(status != "ok" for status in self.status) - stopped
        ends = (
            f"{f', {stopped} stopped' if stopped else ''}{f', {failed} failed' if failed else ''}"
        )
        density = self.log_density
        nats = "" if density is None else f", mean log-density {density.nanmean():.4g} nats"
        shape = tuple(self.x.shape)
        return (
            f"Solution({shape} by {solver}, {self._steps}, {calls} calls per sample{nats}{ends})"
        )

    @property
    def _steps(self) -> str:
        r"""The number of steps in words: those of the grid, or those that a solver chose."""

        made, intervals = self.provenance, len(self.times) - 1
        chosen = made.get("rtol") is not None or made.get("atol") is not None
        if not chosen:
            return f"{intervals} intervals"
        taken = int((self.accepted + self.rejected).max())
        if not taken:  # of files, which do not say
            return "steps of its own"
        refused = _span(self.rejected)
        return f"{_span(self.accepted)} steps{'' if refused == '0' else f', {refused} rejected'}"


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    r"""The values of all samples, if every batch has them."""

    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def _estimates(parts: list["Solution"]) -> Tensor | None:
    r"""The last estimates of all samples, 0 for those that were not begun, if there are any."""

    known = [
        part.x.new_zeros(part.x.shape) if part.estimate is None else part.estimate
        for part in parts
    ]
    return None if all(part.estimate is None for part in parts) else torch.cat(known)


def _span(counts: Tensor) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low}-{high}"


Run = Generator[
    Event, object, Solution
]  # is sent what a callback answers, and returns its solution
Loop = Callable[[Solver, Problem, Tensor, Tensor, Control], Run]
