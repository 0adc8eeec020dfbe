r"""Brownian motion keyed by (seed, sample): the noise of a sample does not depend on its batch.

Every random number is a function of the seed, the index of the sample, a stream (what it is for)
and a counter. The k-th word of a row is the k-th output of SplitMix64 started at a hash of
the others, and pairs of words become normals by the transform of Box and Muller, in float64. All
rows are computed at once.

References:
    | Fast Splittable Pseudorandom Number Generators (Steele et al., 2014), figure 17
    | https://doi.org/10.1145/2660193.2660195
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

VERSION = 1  # of the noise: it changes when the same seed gives other numbers
START, STEPS, PROBES, DATA, DATA_NOISE, DEQUANTIZE = range(1, 7)  # the streams
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >= 1 << 63 else word


def _shift_xor(z: Tensor, bits: int) -> Tensor:
    shifted = z >> bits
    shifted &= (1 << (64 - bits)) - 1  # int64 shifts copy the sign
    shifted ^= z
    return shifted


def _mix(z: Tensor) -> Tensor:
    z = _shift_xor(z, 30)
    z *= _signed(_FIRST)
    z = _shift_xor(z, 27)
    z *= _signed(_SECOND)
    return _shift_xor(z, 31)


def _words(seed: int, index: Tensor, stream: int, first: int, count: int) -> Tensor:
    key = torch.tensor(_signed(seed * _GAMMA + stream), dtype=torch.int64, device=index.device)
    key = _mix(
        _mix(_mix(key)) + index * _signed(_GAMMA)
    )  # in turn: a sum would not tell who is who
    counter = torch.arange(first + 1, first + count + 1, device=index.device)
    return _mix(key[:, None] + counter * _signed(_GAMMA))


def keyed_uniform(seed: int, index: Tensor, stream: int, counter: int, size: int) -> Tensor:
    r"""Returns uniform numbers in (0, 1), with shape (B, size), in float64.

    Arguments:
        seed: The seed.
        index: The indices of the samples, with shape (B,).
        stream: What the numbers are for.
        counter: Which block of `size` numbers of the stream.
        size: How many numbers each sample gets.
    """

    words = (_words(seed, index, stream, counter * size, size) >> 11) & ((1 << 53) - 1)
    return words.double().add_(0.5).mul_(2.0**-53)


def keyed_normal(seed: int, index: Tensor, stream: int, counter: int, size: int) -> Tensor:
    r"""Returns standard normal numbers, with shape (B, size), in float64.

    Arguments are those of :func:`keyed_uniform`.
    """

    pairs = (size + 1) // 2
    words = _words(seed, index, stream, counter * pairs, pairs)
    mask = (1 << 32) - 1
    radius = (((words >> 32) & mask).double() + 0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = ((words & mask).double() + 0.5).mul_(2 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :size]


class Brownian(ABC):
    r"""Abstract Brownian motion, as a solver with `n` steps sees it."""

    @abstractmethod
    def increment(self, step: int, t0: float, t1: float) -> Tensor:
        r"""Returns :math:`w(t_1) - w(t_0)` over a step, like the state."""

    @abstractmethod
    def increment_and_integral(self, step: int, t0: float, t1: float) -> tuple[Tensor, Tensor]:
        r"""Returns the increment, and :math:`\int_{t_0}^{t_1} (w(s) - w(t_0)) \, ds`."""


@dataclass(frozen=True)
class Increments(Brownian):
    r"""Creates the cheap form: the normals of a step are keyed by the number of the step.

    It serves a grid known beforehand. Other step counts see other paths.

    Arguments:
        seed: The seed.
        index: The indices of the samples, with shape (B,).
        like: A state of shape (B, *), which gives shape, dtype and device.
    """

    seed: int
    index: Tensor
    like: Tensor

    def rows(self, index: Tensor) -> "Increments":
        r"""Returns the noise of some rows."""

        return replace(self, index=self.index[index], like=self.like[index.to(self.like.device)])

    def increment(self, step: int, t0: float, t1: float) -> Tensor:
        return self._normal(2 * step) * math.sqrt(abs(t1 - t0))

    def increment_and_integral(self, step: int, t0: float, t1: float) -> tuple[Tensor, Tensor]:
        h, w = t1 - t0, self.increment(step, t0, t1)
        bridge = self._normal(2 * step + 1) * math.sqrt(abs(h) / 12)
        return w, h * (w / 2 + bridge)

    def _normal(self, counter: int) -> Tensor:
        size = self.like[0].numel()
        z = keyed_normal(self.seed, self.index, STEPS, counter, size)
        return z.to(self.like).reshape(self.like.shape)
