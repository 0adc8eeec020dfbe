r"""Distances between samples and data, with the floor that finite data sets."""

import torch
from torch import Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""Returns the energy distance between two sets of samples, without bias.

    .. math:: 2 \, \mathbb{E} |X - Y| - \mathbb{E} |X - X'| - \mathbb{E} |Y - Y'|

    It is 0 on average for samples of one distribution, and can then be negative.

    Arguments:
        x: Samples, with shape (N, *).
        y: Samples, with shape (M, *).

    References:
        | Energy Statistics (Szekely and Rizzo, 2013), equation (5)
        | https://doi.org/10.1016/j.jspi.2013.03.018
    """

    x, y = x.flatten(1).double(), y.flatten(1).double()
    within = (torch.cdist(s, s).sum() / (len(s) * (len(s) - 1)) for s in (x, y))
    return float(2 * torch.cdist(x, y).mean() - sum(within))


def floor(data: Tensor, size: int, *, repeats: int = 20, seed: int = 0) -> tuple[float, float]:
    r"""Returns the mean and standard deviation of the energy distance of data from itself.

    Arguments:
        data: Data, with shape (N, *), of which disjoint parts are compared.
        size: The number of samples in a part, at most N / 2.
        repeats: The number of random splits.
        seed: The seed of the splits.
    """

    draw = torch.Generator().manual_seed(seed)
    size = min(size, len(data) // 2)
    values = []
    for _ in range(repeats):
        order = torch.randperm(len(data), generator=draw)
        values.append(energy_distance(data[order[:size]], data[order[size:]]))
    distances = torch.tensor(values)
    return float(distances.mean()), float(distances.std())


def nearest(x: Tensor, data: Tensor) -> Tensor:
    r"""Returns the distance of each sample from the nearest point of some data, with shape (N,).

    Arguments:
        x: Samples, with shape (N, *).
        data: Data, with shape (M, *).
    """

    return torch.cdist(x.flatten(1), data.flatten(1)).amin(1)
