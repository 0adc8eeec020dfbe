r"""Data at several noise levels, and the error of the best denoiser that is linear."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.noise.brownian import PROBES, keyed_normal

from ..processes.process import Process

UNIT = 0.5  # standard deviation of the data for which levels are named
SHOWN = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)  # levels of the table
JUDGED = (0.2, 2.0)  # between which a model has to be better than a linear denoiser
SEARCHED = (0.2, 0.5, 1.0, 2.0, 8.0)  # levels by which meanings are compared
EDGE = 1.001  # how far inside the domain levels stay
FEW = 3  # levels, below which others are taken


class Noised(NamedTuple):
    r"""Data at a noise level.

    Arguments:
        level: The noise level :math:`\sigma / \alpha`.
        named: The level for data of standard deviation 0.5.
        t: The time, with shape (), in float64.
        x: The noisy data, with shape (B, *).
        z: Its noise.
        alpha: The scale of the signal.
        sigma: The scale of the noise.
        linear: The mean square error of the best isotropic linear denoiser.
    """

    level: float
    named: float
    t: Tensor
    x: Tensor
    z: Tensor
    alpha: float
    sigma: float
    linear: float


def deviation(data: Tensor) -> float:
    r"""Returns the standard deviation of data from its mean, over all coordinates."""

    return math.sqrt(float(data.double().var(0).mean()))


def linear_error(std: float, level: float) -> float:
    r"""Returns the error of the best isotropic linear denoiser, :math:`v s^2 / (v + s^2)` per coordinate."""

    return std**2 * level**2 / (std**2 + level**2)


def levels_of(process: Process, named: Sequence[float], std: float) -> list[float]:
    r"""Returns the noise levels for data of some standard deviation that lie in the domain of a process.

    Where hardly any do, as for data in another range, they are spread over the domain.
    """

    low, high = (process.noise_level(t) for t in (process.t_min, process.t_max))
    low, high = low * EDGE, high / EDGE
    found = [level * std / UNIT for level in named if low < level * std / UNIT < high]
    if len(found) >= min(FEW, len(named)):
        return found
    return torch.logspace(math.log10(low), math.log10(high), len(named)).tolist()


def time_of(process: Process, level: float) -> Tensor:
    r"""Returns the time of a noise level, with shape (), in float64."""

    return process.time(torch.tensor(-math.log(level), dtype=torch.float64))


def noise_of(data: Tensor, seed: int, number: int) -> Tensor:
    r"""Returns standard noise for data, of which row i depends on the seed, i and a number alone."""

    index = torch.arange(len(data), device=data.device)
    return keyed_normal(seed, index, PROBES, number, data[0].numel()).to(data).reshape(data.shape)


def noised(
    process: Process, data: Tensor, named: Sequence[float], std: float, seed: int
) -> Iterator[Noised]:
    r"""Returns data at the noise levels that lie in the domain."""

    for number, level in enumerate(levels_of(process, named, std)):
        t, z = time_of(process, level), noise_of(data, seed, number)
        alpha, sigma = (float(scale) for scale in process.scales(t))
        x = alpha * data + sigma * z
        yield Noised(level, level * UNIT / std, t, x, z, alpha, sigma, linear_error(std, level))


def judged(named: float, most: float = JUDGED[1]) -> bool:
    r"""Returns whether models are held to account at a level, named as for data of standard deviation 0.5."""

    return JUDGED[0] * 0.99 < named < most * 1.01
