r"""Refinement of grids, one time at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

FIRST, GROWTH, SHRINK, MOST = 0.3, 1.3, 0.5, 0.8


def refine(
    objective: Callable[[Tensor], float], levels: Tensor, *, sweeps: int = 6
) -> tuple[Tensor, float]:
    r"""Moves the inner noise levels of a grid, each between its neighbours, as long as that helps.

    Arguments:
        objective: The function of noise levels to minimise.
        levels: The initial noise levels, in descending order, with shape (n + 1,).
        sweeps: The number of tries per level.

    Returns:
        The best levels, and their value.
    """

    logs = levels.double().log()
    reach = torch.full_like(logs, FIRST)  # of a move, as a fraction of the gap to the neighbour
    best = objective(levels)
    for _ in range(sweeps):
        for i in range(1, len(logs) - 1):
            for neighbour in (i - 1, i + 1):
                moved = logs.clone()
                moved[i] += reach[i] * (logs[neighbour] - logs[i])
                value = objective(_levels(moved, levels))
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
