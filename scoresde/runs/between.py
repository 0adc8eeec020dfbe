r"""Between the steps of a run: whoever drives it from outside sees the state there, and may change it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from solvers import Solver

from ..models.score_model import ScoreModel
from ..reverse.reverse import Reverse

Between = Callable[[Tensor, Tensor], Tensor | None]

_TOLD: ContextVar[tuple[ScoreModel, Between] | None] = ContextVar("told between", default=None)


@contextmanager
def telling(model: ScoreModel, told: Between) -> Iterator[None]:
    r"""Has a function told of state and time between all steps of a model's runs, and before the last denoising.

    Only runs on grids tell, since others have a time for each sample.

    Arguments:
        model: The model whose runs in this block are meant, or its part.
        told: The function. It returns the state to go on from, or `None` to go on from the same.
    """

    token = _TOLD.set((model, told))
    try:
        yield
    finally:
        _TOLD.reset(token)


def _told_of(model: ScoreModel) -> Between | None:
    known = _TOLD.get()
    if known is None:
        return None
    return known[1] if any(part is known[0] for part in model.modules()) else None


def changed_between(model: ScoreModel, x: Tensor, time: Tensor) -> Tensor:
    r"""Returns the state to go on from."""

    told = _told_of(model)
    other = None if told is None else told(x, time)
    return x if other is None else other.to(x)


def seam(
    reverse: Reverse, times: Tensor, x: Tensor, solver: Solver, *, noisy: bool
) -> Callable[[int, Tensor], Tensor] | None:
    r"""Returns what happens to the states of a problem between its steps, if anything does.

    Arguments:
        reverse: The reverse process.
        times: The grid.
        x: The states at its start.
        solver: The solver. Reversible ones have coordinates of their own, and tell nothing.
        noisy: Whether the run is noisy.
    """

    own = reverse.seam(times, x) if noisy else None
    told = None if solver.can.reversible else _told_of(reverse.model)
    if told is None:
        return own

    def changed(i: int, X: Tensor) -> Tensor:
        other = told(reverse.leave(X, times[i]), times[i])
        if other is not None:
            return reverse.enter(other.to(X), times[i])
        return X if own is None else own(i, X)

    return changed
