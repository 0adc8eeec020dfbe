r"""Brownian motion keyed by (seed, sample): the noise of a sample does not depend on its batch.

Every random number is a function of the seed, the index of the sample, a stream (its purpose) and a counter. The
k-th word of a row is the k-th output of SplitMix64 started at a hash of the others, and the halves of a word
become two normals by the transform of Box and Muller. All rows are computed at once.

References:
    | Fast Splittable Pseudorandom Number Generators (Steele et al., 2014), figure 17
    | https://doi.org/10.1145/2660193.2660195
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..shapes import factors

VERSION = 4  # of the noise: it changes whenever a seed gives different numbers
START, STEPS, PROBES, DATA, DATA_NOISE, DEQUANTIZE, TREE, FRESH, LEVELS, EDITS, AUXILIARY = range(
    1, 12
)  # the streams
AT_ONCE = 2**22  # entries whose keys are computed at once
TOGETHER = 2**15  # normals up to which several blocks are drawn at once: more overflow the caches
Seed = int | Tensor  # one for all, or one per sample


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >= 1 << 63 else word


GAMMA, FIRST, SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(z: Tensor) -> Tensor:  # the finaliser of SplitMix64; int64 shifts copy the sign
    z = (z >> 30).bitwise_and_((1 << 34) - 1).bitwise_xor_(z).mul_(FIRST)
    z = (z >> 27).bitwise_and_((1 << 37) - 1).bitwise_xor_(z).mul_(SECOND)
    return (z >> 31).bitwise_and_((1 << 33) - 1).bitwise_xor_(z)


def keys(seed: Seed, index: Tensor, stream: int) -> Tensor:
    r"""Returns the keys at which the words of each sample start, with shape (B,)."""

    if isinstance(seed, int):
        return _mix(index * GAMMA + _root(seed, stream))
    seed = torch.as_tensor(seed, dtype=torch.int64, device=index.device)
    return _mix(index * GAMMA + _stirred(seed, stream))


def _stirred(seed: Tensor, stream: int) -> Tensor:
    key = seed * GAMMA + stream
    for _ in range(3):  # in turn with the index: a sum would not tell the two apart
        key = _mix(key)
    return key


@lru_cache(maxsize=256)
def _root(seed: int, stream: int) -> int:
    return int(_stirred(torch.tensor(seed, dtype=torch.int64), stream))


def key_of_rows(x: Tensor) -> Tensor:
    r"""Returns a key of the values of each row, with shape (B,), the same in float32 and float64.

    It is a sum without carry of one mixed word per entry, which depends on the entry's place, so neither batch
    nor device changes it.
    """

    x = x.detach().flatten(1)
    x = (x if x.device.type != "mps" else x.cpu()).double() + 0.0  # zero has one sign
    place = torch.arange(1, x.shape[1] + 1, device=x.device) * GAMMA
    rows = x.split(max(AT_ONCE // len(place), 1))
    return torch.cat([_mix(_mix(row.view(torch.int64) + place).sum(1)) for row in rows])


def seeds_of_rows(seed: Seed, index: Tensor, x: Tensor) -> Tensor:
    r"""Returns a seed for each row of data, from its values, its seed and its index, with shape (B,).

    Noise drawn with it is independent of the data, even if the data came from noise of the same seed.
    """

    own = keys(seed, index.to(x.device), EDITS)
    return _mix(own + _mix(key_of_rows(x).to(own.device)) * GAMMA)


def keys_of_steps(times: Tensor) -> Tensor:
    r"""Returns a key of each step of a grid, with shape (n,) or (n, B) for n + 1 times.

    It is a key of the time at which the step starts, rounded to float32, so a grid and its copy in float32 have
    the same keys. Only if float32 cannot tell the ends of a step apart, so that a copy is no grid, do all digits
    count. It does not depend on neighbouring times, so it is the same in part of a grid.
    """

    times = times.double() + 0.0  # zero has one sign
    rounded = times.float().double()
    told = rounded[:-1] != rounded[1:]
    starts = torch.where(told, rounded[:-1], times[:-1]).contiguous()
    return _mix(_mix(starts.view(torch.int64) * GAMMA) + ~told)


def _words(key: Tensor, first: int | Tensor, count: int) -> Tensor:
    start = _signed(first * GAMMA) if isinstance(first, int) else first.to(key.device) * GAMMA
    number = torch.arange(1, count + 1, device=key.device)
    return _mix((key + start)[:, None] + number * GAMMA)


def _normal(key: Tensor, first: int | Tensor, size: int, dtype: torch.dtype) -> Tensor:
    pairs = _pairs(size)
    first, second = _words(key, first, pairs).view(torch.int32).chunk(2, dim=1)
    radius = (first & (2**31 - 1)).to(dtype).add_(0.5).mul_(2.0**-31)
    radius = radius.log_().mul_(-2).sqrt_()
    angle = second.to(dtype).mul_(math.pi * 2.0**-31)
    return torch.cat([radius * angle.cos(), radius * angle.sin_()], dim=1)[:, :size]


def keyed_uniform(seed: Seed, index: Tensor, stream: int, counter: int, size: int) -> Tensor:
    r"""Returns uniform numbers in (0, 1), with shape (B, size), in float64.

    Arguments:
        seed: The seed, or one per sample.
        index: The indices of the samples, with shape (B,).
        stream: The purpose of the numbers.
        counter: The index of the block of `size` numbers in the stream.
        size: The count of numbers per sample.
    """

    words = (_words(keys(seed, index, stream), counter * size, size) >> 11) & ((1 << 53) - 1)
    return words.double().add_(0.5).mul_(2.0**-53)


def keyed_normal(
    seed: Seed,
    index: Tensor,
    stream: int,
    counter: int,
    size: int,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    r"""Returns standard normal numbers, with shape (B, size).

    The arguments are those of :func:`keyed_uniform`.
    """

    return _normal(keys(seed, index, stream), counter * _pairs(size), size, dtype)


def _pairs(size: int) -> int:
    return (size + 1) // 2


class Brownian(ABC):
    r"""Abstract Brownian motion, as a solver with `n` steps sees it.

    Times have shape (), or (B,) when samples differ.

    Attributes:
        clocked: Whether its times belong to one clock, into which a solver's times are translated. Otherwise it
            accepts steps in any clock.

    Examples:
        >>> motion = solvers.Increments(0, torch.arange(4), torch.zeros(4, 2))
        >>> isinstance(motion, solvers.Brownian)
        True
        >>> motion.increment(0, torch.tensor(0.0), torch.tensor(1.0)).shape
        torch.Size([4, 2])
    """

    clocked: ClassVar[bool] = True

    @abstractmethod
    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        r"""Returns :math:`w(t_1) - w(t_0)` over a step, with the state's shape."""

    def increments(
        self, step: int, t0: Tensor, t1: Tensor, inside: Sequence[float]
    ) -> list[Tensor]:
        r"""Returns the increments from the start of a step to the given fractions of it."""

        return [self.increment(step, t0, torch.lerp(t0, t1, theta)) for theta in inside]

    @abstractmethod
    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the increment, and :math:`\int_{t_0}^{t_1} (w(s) - w(t_0)) \, ds`."""

    def fresh(self, step: int, k: int) -> Tensor:
        r"""Returns the k-th set of standard normals of a step that are independent of the path."""

        raise NotImplementedError(
            f"{type(self).__name__} has increments only, but this solver needs further normal numbers; "
            "pass seed= in place of it."
        )

    def on(self, times: Tensor) -> Self:
        r"""Returns the noise on a grid, with shape (n + 1,) or (n + 1, B), unless it already has one."""

        return self

    def check(self, times: Tensor) -> None:
        r"""Refuses a grid, in the clock of this motion, whose steps are too short for its law."""

        return None

    def rows(self, index: Tensor) -> Self:
        r"""Returns the noise of the given rows."""

        raise NotImplementedError(
            f"{type(self).__name__} cannot be split into rows; pass seed=, whose noise can."
        )


@dataclass(frozen=True)
class Keyed(Brownian):
    r"""Abstract Brownian motion from keyed numbers.

    Arguments:
        seed: The seed, or one per sample.
        index: The indices of the samples, with shape (B,).
        like: A state with shape (B, *), which sets shape, dtype and device.
        times: The times that key the steps, with shape (n + 1,), or (n + 1, B) when samples differ, in any
            clock: a step has the same numbers in part of a grid as in the whole grid, and in its copy in
            float32. By default, :func:`solvers.solve` uses those of its grid; elsewhere, steps are keyed by
            their index.
    """

    seed: Seed
    index: Tensor
    like: Tensor
    times: Tensor | None = None

    def on(self, times: Tensor) -> Self:
        return replace(self, times=times) if self.times is None else self

    def rows(self, index: Tensor) -> Self:
        seed, times, here = self.seed, self.times, index.to(self.like.device)
        if isinstance(seed, Tensor) and seed.ndim:
            seed = seed[index.to(seed.device)]
        if times is not None and times.ndim > 1:
            times = times[:, index.to(times.device)]
        own = self.index[index.to(self.index.device)]
        return replace(self, seed=seed, index=own, like=self.like[here], times=times)

    def fresh(self, step: int, k: int) -> Tensor:
        return self.normal(FRESH, k, self.place(step))

    def place(self, step: int) -> int | Tensor:
        r"""Returns the word of a stream at which the numbers of a step start, with shape () or (B,)."""

        return step << 32 if self._places is None else self._places[step]

    def normal(self, stream: int, counter: int | Tensor, place: int | Tensor = 0) -> Tensor:
        r"""Returns standard normal numbers with the state's shape.

        Arguments:
            stream: Their purpose.
            counter: The index of the block of numbers, counted from the place, with shape () or (B,).
            place: The word of the stream at which the first block starts.
        """

        return next(self.normals(stream, [counter], place))

    def normals(
        self, stream: int, counters: Sequence[int | Tensor], place: int | Tensor = 0
    ) -> Iterator[Tensor]:
        r"""Yields the result of :meth:`normal` for each counter. Small states are drawn together."""

        size, rows, key = self.like[0].numel(), len(self.like), self._keys[stream]
        together = max(TOGETHER // self.like.numel(), 1)
        for i in range(0, len(counters), together):
            firsts = [
                torch.as_tensor(counter * _pairs(size) + place).to(key.device).expand(rows)
                for counter in counters[i : i + together]
            ]
            z = _normal(key.repeat(len(firsts)), torch.cat(firsts), size, self.like.dtype)
            yield from z.reshape(len(firsts), *self.like.shape).unbind()

    @cached_property
    def _keys(self) -> dict[int, Tensor]:
        index = self.index.to(self.like.device)
        return {stream: keys(self.seed, index, stream) for stream in (STEPS, TREE, FRESH)}

    @cached_property
    def _places(self) -> list[int] | Tensor | None:
        if self.times is None:
            return None
        places = keys_of_steps(self.times.cpu())
        return places.tolist() if places.ndim == 1 else places.to(self.like.device)


class Increments(Keyed):
    r"""Creates independent increments, the cheap form: a step is keyed by the time at which it starts, in
    float32.

    They serve a grid that is known beforehand. Other grids see other paths.

    Examples:
        >>> start, stop, like = torch.tensor(0.0), torch.tensor(1.0), torch.zeros(4, 2)
        >>> all_rows = solvers.Increments(0, torch.arange(4), like).increment(0, start, stop)
        >>> last_row = solvers.Increments(0, torch.tensor([3]), like[:1]).increment(0, start, stop)
        >>> torch.equal(all_rows[3:], last_row)
        True
    """

    clocked = False

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        return _times(self.normal(STEPS, 0, self.place(step)), (t1 - t0).abs().sqrt())

    def increments(
        self, step: int, t0: Tensor, t1: Tensor, inside: Sequence[float]
    ) -> list[Tensor]:
        whole = self.increment(step, t0, t1)
        between = [theta for theta in inside if theta < 1]
        if len(between) > 1:
            raise ValueError(
                "increments can be taken at only one time between grid times; pass noise='path'."
            )
        bridge = _times(self._bridge(step), (t1 - t0).abs().sqrt())
        return [theta * whole + math.sqrt(theta * (1 - theta)) * bridge for theta in inside]

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        h, w = t1 - t0, self.increment(step, t0, t1)
        bridge = _times(self._bridge(step), (h.abs() / 12).sqrt())
        return w, _times(w / 2 + bridge, h)

    def _bridge(self, step: int) -> Tensor:
        return self.normal(STEPS, 1, self.place(step))


def _times(x: Tensor, factor: Tensor) -> Tensor:
    [number] = factors(factor[None, ..., None], x)
    return x * number
