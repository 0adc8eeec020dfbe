r"""Nodes of a midpoint rule for the divergence, which are dense where probes are noisy.

The integral over the logarithm u of the noise level uses n nodes at the quantiles of a density :math:`\rho`,
with weights :math:`1 / (n \rho)`. The noise of one probe per node, with standard deviation :math:`\varsigma(u)`,
is smallest for :math:`\rho \propto \varsigma`; a part of the density that follows the Gaussian companion keeps
nodes where the trace changes without noise.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .companion import Companion

TABLE = 2048
EVEN = 0.15  # the fraction of the base density that is even in u
BASE = 0.35  # the fraction of the density that is the base
QUIET = 1e-4  # standard deviations in nats that nodes need not follow
WIDTH = 0.4  # by which the pilot's profile is smoothed, in u
CHUNK = 128  # points at which it is smoothed at once


class Nodes(NamedTuple):
    r"""Nodes of an integral over the logarithm of the noise level.

    Arguments:
        u: The nodes, with shape (n, B), or (n, 1) if all rows share them, in float64.
        weights: Their weights, with the same shape.
    """

    u: Tensor
    weights: Tensor


def table(first: float, last: float) -> Tensor:
    r"""Returns the points at which densities are tabulated, with shape (T,)."""

    return torch.linspace(first, last, TABLE, dtype=torch.float64)


def base_density(companion: Companion, u: Tensor) -> Tensor:
    r"""Returns a density that follows the change of the companion's trace, with shape (T, 1)."""

    change, even = companion.change(u).sqrt(), torch.ones_like(u)
    return ((1 - EVEN) * _normal(change, u) + EVEN * _normal(even, u))[:, None]


def refined_density(base: Tensor, u: Tensor, pilot: Tensor, noise: Tensor) -> Tensor:
    r"""Returns a density that follows the noise of a pilot, with shape (T, B).

    Arguments:
        base: The base density, with shape (T, 1).
        u: The points of the densities, with shape (T,).
        pilot: The nodes of the pilot, with shape (M,).
        noise: The standard deviations found there, with shape (M, B).
    """

    inner = [np.interp(u.numpy(), _framed(pilot, u), np.eye(len(pilot) + 2)[i + 1])
             for i in range(len(pilot))]  # fmt: skip
    profile = _smoothed(torch.from_numpy(np.stack(inner, 1)), u) @ noise.nan_to_num().cpu()
    silent = noise.nan_to_num().cpu().amax(0) < QUIET  # nothing to follow but round-off
    profile = torch.where(silent, base, profile)
    return (1 - BASE) * _normal(profile, u) + BASE * base


def place(u: Tensor, density: Tensor, count: int, offset: Tensor | float = 0.5) -> Nodes:
    r"""Returns nodes at the quantiles of densities.

    Arguments:
        u: The points of the densities, with shape (T,).
        density: The densities, with shape (T, B).
        count: The number of nodes.
        offset: The position of each node in its part of the probability, in (0, 1), with shape () or (B,).
    """

    pieces = (density[1:] + density[:-1]) / 2 * (u[1] - u[0])
    total = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    total = total / total[-1]
    shift = torch.as_tensor(offset, dtype=torch.float64).reshape(-1, 1)
    quantiles = (torch.arange(count, dtype=torch.float64) + shift) / count
    rows = total.T.expand(max(len(quantiles), total.shape[1]), -1).contiguous()
    quantiles = quantiles.expand(len(rows), -1).contiguous()
    right = torch.searchsorted(rows, quantiles)
    right = right.clamp(1, len(u) - 1)
    low, high = rows.gather(1, right - 1), rows.gather(1, right)
    share = (quantiles - low) / (high - low)
    slope = (u[1] - u[0]) / (high - low)
    return Nodes((u[right - 1] + share * (u[1] - u[0])).T, slope.T / count)


def _smoothed(rows: Tensor, u: Tensor) -> Tensor:
    r"""Functions on the table, with shape (T, M), smoothed with a normal kernel."""

    found = []
    for some in u.split(CHUNK):  # the whole kernel would take more memory than a network
        kernel = torch.exp(-(((some[:, None] - u) / WIDTH) ** 2) / 2)
        found.append(kernel / kernel.sum(1, keepdim=True) @ rows)
    return torch.cat(found)


def _framed(pilot: Tensor, u: Tensor) -> np.ndarray:
    return np.concatenate([u[:1].numpy(), pilot.numpy(), u[-1:].numpy()])


def _normal(density: Tensor, u: Tensor) -> Tensor:
    return density / (density.sum(0) * (u[1] - u[0]))
