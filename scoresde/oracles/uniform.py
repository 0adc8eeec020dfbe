r"""The exact score model of a uniform distribution on a box, such as the prior of a simulator."""

import math
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array
from solvers.network_calls import count_call
from solvers.noise.brownian import DATA, keyed_uniform

from ..doors.data import as_floats
from ..models.data_moments import Moments
from ..processes.process import Process
from .known_data import known_process
from .mixture import Oracle

SURE = -12.0  # standard deviations below which a normal tail holds everything, to rounding


class Cut(NamedTuple):
    r"""A standard normal cut off at a and b, with b at least as far from 0 as a.

    Arguments:
        mean: Its mean, in units of the noise.
        log_mass: The logarithm of its mass.
    """

    mean: Tensor
    log_mass: Tensor


def cut(a: Tensor, b: Tensor) -> Cut:
    r"""Returns the mean and the mass of a standard normal between a and b, for :math:`b \ge |a|`."""

    near = a.clamp(min=SURE)
    lower, upper = (torch.special.erfcx(z / math.sqrt(2)) for z in (near, b))
    log_ratio = -(b - a) * (b + a) / 2  # of the densities at b and a
    beyond = torch.exp(log_ratio) * upper / lower  # of the tails above b and a
    mean = math.sqrt(2 / math.pi) / lower * -torch.expm1(log_ratio) / (1 - beyond)
    return Cut(mean, torch.special.log_ndtr(-a) + torch.log1p(-beyond))


@checked
class UniformOracle(Oracle):
    r"""Creates the exact score model of a uniform distribution on a box.

    With noise of the level :math:`s = \sigma / \alpha` on :math:`X = x / \alpha`, and :math:`a = (l - X) / s` and
    :math:`b = (u - X) / s` for the bounds l and u of each entry,

    .. math:: D(x) = X + s \, \frac{\varphi(a) - \varphi(b)}{\Phi(b) - \Phi(a)} ,

    the mean of a normal that is cut off at the bounds.

    Arguments:
        low: The lower bounds, with shape (\*).
        high: The upper bounds, with the same shape.
        process: The process. By default, `EDM()`.

    Raises:
        ValueError: If the shapes differ, or a lower bound is not below the upper one.

    Examples:
        >>> box = ss.UniformOracle([0.0, -1.0], [2.0, 1.0])
        >>> box.denoise(torch.zeros(1, 2), torch.tensor([50.0])).round(decimals=2)
        tensor([[1., 0.]])
    """

    def __init__(self, low: Array, high: Array, process: Process | None = None) -> None:
        low, high = as_floats("low", low, least=1), as_floats("high", high, least=1)
        super().__init__()
        if low.shape != high.shape:
            raise ValueError(
                f"low and high must have the same shape, but have {tuple(low.shape)} and {tuple(high.shape)}."
            )
        if not bool((low < high).all()):
            worst = int((low - high).flatten().argmax())
            raise ValueError(
                f"low must be below high, but entry {worst} goes from {low.flatten()[worst]:.4g} to "
                f"{high.flatten()[worst]:.4g}."
            )
        self.process, self.shape = known_process(process), tuple(low.shape)
        self.low, self.high = (torch.nn.Buffer(bound.flatten()) for bound in (low, high))
        centre, half = self._box(low)
        self._know((centre.square() + half.square() / 3).mean(), half.square().min() / 3)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        count_call()
        y, level, side, found, _ = self._cut(x, t)
        return (y + side * level * found.mean).reshape(x.shape).to(x)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        *_, found, alpha = self._cut(x, t)
        _, half = self._box(x)
        return (found.log_mass - torch.log(2 * half * alpha)).sum(1).to(x)

    def data(self, count: int, *, seed: int = 0) -> Tensor:
        index = torch.arange(count, device=self.low.device)
        u = keyed_uniform(seed, index, DATA, 0, len(self.low)).to(self.low)
        return torch.lerp(self.low, self.high, u).reshape(count, *(self.shape or ()))

    @cached_property
    def moments(self) -> Moments:
        r"""The mean and covariance of the data."""

        centre, half = self._box(self.low)
        return Moments(centre.reshape(self.shape or (-1,)), None, half.square() / 3)

    def _box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""The centre and half of the widths, in float64."""

        low, high = (bound.to(x.device).double() for bound in (self.low, self.high))
        return (low + high) / 2, (high - low) / 2

    def _cut(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Cut, Tensor]:
        r"""The state in units of the data, its level, the side that is nearer, the cut normal, and alpha."""

        alpha, sigma = self._scales(x.double(), t)
        y, level = x.double().flatten(1) / alpha, sigma / alpha
        centre, half = self._box(x)
        off = y - centre
        side = torch.where(off < 0, 1.0, -1.0).to(off)  # so that the nearer bound is the lower one
        a, b = ((bound + off.abs()) / level for bound in (-half, half))
        return y, level, side, cut(a, b), alpha
