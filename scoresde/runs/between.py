r"""Between the steps of a run: whoever drives it from outside sees the state there, and may change it."""

from collections.abc import Callable

from torch import Tensor

from solvers import Solver

from ..models.score_model import ScoreModel
from ..reverse.reverse import Reverse

NAME = "_told_between_steps"  # of the attribute of a model whose owner is told
Between = Callable[[Tensor, Tensor], Tensor | None]


def tell_between(model: ScoreModel, told: Between) -> None:
    r"""Has a function told of state and time between all steps on grids, and before the last denoising.

    Arguments:
        model: The model whose runs are meant, or its part.
        told: The function. It returns the state to go on from, or `None` to go on from the same.
    """

    object.__setattr__(model, NAME, told)


def _told_of(model: ScoreModel) -> Between | None:
    return next((vars(m)[NAME] for m in model.modules() if NAME in vars(m)), None)


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
