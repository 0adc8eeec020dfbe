r"""Refinement of grids, one time at a time."""

from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

FIRST, GROWTH, SHRINK, MOST = 0.3, 1.3, 0.5, 0.8


def refine(
    objective: Callable[[list[tuple[int, Tensor]]], list[float]],
    grids: Sequence[Tensor],
    *,
    sweeps: int = 6,
) -> list[tuple[Tensor, float]]:
    r"""Moves the inner noise levels of grids, each between its neighbours, as long as that helps.

    One move of each grid is tried at a time, so that workers may share them; no grid depends on the others.

    Arguments:
        objective: The function to minimise. It is called with the number and noise levels of some grids, and
            returns a value for each.
        grids: The initial noise levels, in descending order, each with shape (n + 1,).
        sweeps: The number of tries per level.

    Returns:
        The best levels, and their value, for each grid.
    """

    searches = [_search(levels, sweeps) for levels in grids]
    asked = {k: next(search) for k, search in enumerate(searches)}
    found = {}
    while asked:
        for (k, _), value in zip([*asked.items()], objective([*asked.items()]), strict=True):
            try:
                asked[k] = searches[k].send(value)
            except StopIteration as end:
                found[k] = end.value
                del asked[k]
    return [found[k] for k in range(len(grids))]


def _search(levels: Tensor, sweeps: int) -> Generator[Tensor, float, tuple[Tensor, float]]:
    r"""Yields the levels to try next, is sent their value, and returns the best ones."""

    logs = levels.double().log()
    reach = torch.full_like(logs, FIRST)  # of a move, as a fraction of the gap to the neighbour
    best = yield levels
    for _ in range(sweeps):
        for i in range(1, len(logs) - 1):
            for neighbour in (i - 1, i + 1):
                moved = logs.clone()
                moved[i] += reach[i] * (logs[neighbour] - logs[i])
                value = yield _levels(moved, levels)
                if value < best:
                    logs, best = moved, value
                    reach[i] = min(float(reach[i]) * GROWTH, MOST)
                    break
            else:
                reach[i] *= SHRINK
    return _levels(logs, levels), best


def _levels(logs: Tensor, levels: Tensor) -> Tensor:
    moved = logs.exp()
    moved[0], moved[-1] = levels[0], levels[-1]  # as they were, to the last bit
    return moved
