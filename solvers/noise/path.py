r"""One Brownian path, the same for any step count and any order of queries.

The path is refined by halves: its value in the middle of an interval follows from those at both ends and one
normal number keyed by the interval, down to the requested time, or to intervals of length :data:`RESOLUTION`. On
these, the path is the line between both ends, plus one keyed normal number times the deviation of a Brownian
bridge. So values at times at least this far apart have the law of Brownian motion, and a grid with shorter steps
is refused.

References:
    | Scalable Gradients for Stochastic Differential Equations (Li et al., 2020), section 4
    | https://arxiv.org/abs/2001.01328
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..shapes import add_product, align, scalars
from .brownian import TREE, Keyed

SPAN, LEVELS = 64.0, 33  # from -32 to 32: more than the log-SNR of any process
RESOLUTION = SPAN / 2**LEVELS  # shorter increments are rounded away in float32
KEPT = 16  # levels kept from one query to the next, which shares them
MESH = 2.0**-7  # pieces of integrals; one eighth of it for shorter steps


@dataclass
class _Interval:
    r"""An interval of a level: its index in the level, and the path at its ends and in the middle."""

    number: int
    left: Tensor
    right: Tensor
    middle: Tensor | None = None


class Path(Keyed):
    r"""Creates a Brownian path. Queries near the last one are cheap, since they share its intervals.

    Examples:
        >>> path = solvers.Path(0, torch.arange(4), torch.zeros(4, 2, dtype=torch.float64))
        >>> t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        >>> halves = path.increment(0, t[0], t[1]) + path.increment(1, t[1], t[2])
        >>> torch.allclose(halves, path.increment(0, t[0], t[2]))
        True
    """

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        start = self.at(t0)  # first, since it is the end of the last step
        return self.at(t1) - start

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        if t0.ndim:
            raise ValueError(
                "the integral of a path is known only if all samples share their times."
            )
        low, high = sorted((t0.item(), t1.item()))
        mesh = min(MESH, 2.0 ** math.floor(math.log2(high - low)) / 8)
        inner = range(math.floor(low / mesh) + 1, math.ceil(high / mesh))
        first = value = self.at(torch.tensor(low, dtype=torch.float64))
        total, before = torch.zeros_like(first), low
        for t in (*(mesh * k for k in inner), high):
            old, value = value, self.at(torch.tensor(t, dtype=torch.float64))
            total.add_(old + value, alpha=(t - before) / 2)
            before = t
        h, start, w = high - low, first, value - first
        if t1 < t0:
            start, w = value, -w
        return w, math.copysign(1, t1 - t0) * (total - h * start)

    def check(self, times: Tensor) -> None:
        shortest = times.diff(dim=0).abs().min().item()
        if shortest < RESOLUTION:
            raise ValueError(
                f"a path resolves times that differ by {RESOLUTION:.2g} or more in its clock, the log-SNR "
                f"of a process, but a step is {shortest:.2g} long; pass noise='increments'."
            )

    def at(self, t: Tensor) -> Tensor:
        r"""Returns the path at a time with shape () or (B,), with the state's shape; it is 0 at -32."""

        for time, value in self._recent:
            if torch.equal(time, t):
                return value
        value = self._at(t)
        self._recent[:] = [(t, value)]
        return value

    def _at(self, t: Tensor) -> Tensor:
        place = ((t + SPAN / 2) / SPAN * 2**LEVELS).cpu()
        if not bool(((place >= 0) & (place < 2**LEVELS)).all()):
            raise ValueError(f"a path reaches from {-SPAN / 2:g} to {SPAN / 2:g}, but t is {t}.")
        leaf = place.floor().long()
        rest = (place - leaf).double()
        left, right = self._shared(int(leaf), float(rest)) if t.ndim == 0 else self._each(leaf)
        if t.ndim == 0 and not rest:
            return left
        [theta] = scalars(rest[None], left)
        [deviation] = scalars((rest * (1 - rest) * RESOLUTION).sqrt()[None], left)
        x = torch.lerp(left, right, theta)
        return add_product(x, self.normal(TREE, 2**LEVELS + leaf), deviation)

    def _shared(self, leaf: int, rest: float) -> tuple[Tensor, Tensor]:
        r"""The path at both ends of the shortest interval needed for a time that all samples share.

        This is the first interval that starts at this time, or one of the last level.
        """

        known = self._intervals
        while known and leaf >> (LEVELS - len(known) + 1) != known[-1].number:
            known.pop()
        if not known:
            end = self.normal(TREE, 0).mul_(math.sqrt(SPAN))
            known.append(_Interval(0, torch.zeros_like(end), end))
        here, top = known[-1], len(known) - 1
        zeros = LEVELS if not leaf else (leaf & -leaf).bit_length() - 1
        levels = range(top + 1, LEVELS + 1 if rest else LEVELS + 1 - zeros)
        numbers = [leaf >> (LEVELS - level + 1) for level in levels]
        skip = 0 if here.middle is None else 1
        wanted = [(1 << (k - 1)) + n for k, n in zip(levels, numbers, strict=True)][skip:]
        normals = self.normals(TREE, wanted)
        for level in levels:
            if here.middle is None:
                here.middle = _middle(here.left, here.right, level, next(normals))
            number = leaf >> (LEVELS - level)
            ends = (here.middle, here.right) if number % 2 else (here.left, here.middle)
            here = _Interval(number, *ends)
            if level < KEPT:
                known.append(here)
        return here.left, here.right

    def _each(self, leaf: Tensor) -> tuple[Tensor, Tensor]:
        r"""The path at both ends of the intervals of the samples."""

        levels = range(1, LEVELS + 1)
        wanted: list[int | Tensor] = [
            0,
            *((1 << (k - 1)) + (leaf >> (LEVELS - k + 1)) for k in levels),
        ]
        normals = self.normals(TREE, wanted)
        right = next(normals) * math.sqrt(SPAN)
        left = torch.zeros_like(right)
        for level, z in zip(levels, normals, strict=True):
            middle = _middle(left, right, level, z)
            upper = align(((leaf >> (LEVELS - level)) % 2 == 1).to(left.device), left)
            left, right = torch.where(upper, middle, left), torch.where(upper, right, middle)
        return left, right

    @cached_property
    def _recent(self) -> list[tuple[Tensor, Tensor]]:  # the last query: it changes no result
        return []

    @cached_property
    def _intervals(self) -> list[_Interval]:  # those around it: they change no result
        return []


def _middle(left: Tensor, right: Tensor, level: int, z: Tensor) -> Tensor:
    length = SPAN / 2 ** (level - 1)
    return torch.lerp(left, right, 0.5).add_(z, alpha=math.sqrt(length) / 2)
