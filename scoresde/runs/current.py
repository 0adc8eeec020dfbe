r"""The part of the current run that guidance may read, and the causes of failures that it reports."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solvers import Solver
from solvers.errors import Failure

from ..reverse.amounts import Amount


@dataclass
class Current:
    r"""Creates the record of one run.

    Arguments:
        solver: The solver.
        times: The grid in the time of the process, with shape (n + 1,) or (n + 1, B), or `None` if the solver
            chooses its own steps.
        eta: The amount of noise.
        suspects: Values that were not finite although their inputs were, with causes and cures.
    """

    solver: Solver
    times: Tensor | None
    eta: Amount
    suspects: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def blame(self, failure: Failure) -> Failure:
        r"""Returns a failure that names the first non-finite value, if that is known."""

        if failure.kind != "nonfinite":
            return failure
        for (cause, cure), bad in self.suspects.items():
            if bool(bad):
                return replace(failure, cause=cause, cure=cure)
        return failure


_current: ContextVar[Current | None] = ContextVar("run", default=None)


@contextmanager
def running(run: Current) -> Iterator[Current]:
    r"""Makes a run the current one in its block, for this thread."""

    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def current_run() -> Current | None:
    r"""Returns the current run, if there is one."""

    return _current.get()


def suspect(cause: str, cure: str, found: Tensor, asked: Tensor) -> None:
    r"""Tells the current run whether a value is not finite in rows with finite input, without waiting for it.

    Arguments:
        cause: The cause to report if it is not finite, as part of a sentence.
        cure: What to do about it.
        found: The value, with shape (B, \*).
        asked: The input, with shape (B, \*).
    """

    run = _current.get()
    if run is None:
        return
    fine = (value.detach().reshape(len(value), -1).isfinite().all(1) for value in (found, asked))
    bad = torch.logical_and(~next(fine), next(fine)).any()
    before = run.suspects.get((cause, cure))
    run.suspects[cause, cure] = bad if before is None else before | bad.to(before.device)
