r"""One Brownian path, the same at any step count and in any order of queries.

The path is refined by halves: its value in the middle of an interval follows from those at both
ends and one normal number keyed by the interval, down to intervals of length :data:`RESOLUTION`. On
these the path is the line between both ends, plus one keyed normal times the deviation of
a Brownian bridge: its variance is right at every time, and increments are exact between multiples
of the resolution.

References:
    | Scalable Gradients for Stochastic Differential Equations (Li et al., 2020), section 4
    | https://arxiv.org/abs/2001.01328
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .brownian import TREE, Keyed
from .shapes import add_product, align, scalars

SPAN, LEVELS = 64.0, 13  # from -32 to 32: more than the log-SNR of any process
RESOLUTION = SPAN / 2**LEVELS


@dataclass
class _Interval:
    r"""An interval of a level: its number there, and the path at its ends and in the middle."""

    number: int
    left: Tensor
    right: Tensor
    middle: Tensor | None = None


class Path(Keyed):
    r"""Creates the path. Queries near the last one are cheap, since both share their intervals."""

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        start = self.at(t0)  # first, since it is the end of the last step
        return self.at(t1) - start

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        if t0.ndim:
            raise ValueError(
                "the integral of a path is known only if all samples share their times."
            )
        low, high = sorted((t0.item(), t1.item()))
        inner = range(math.floor(low / RESOLUTION) + 1, math.ceil(high / RESOLUTION))
        first = value = self.at(torch.tensor(low, dtype=torch.float64))
        total, before = torch.zeros_like(first), low
        for t in (*(RESOLUTION * k for k in inner), high):
            old, value = value, self.at(torch.tensor(t, dtype=torch.float64))
            total.add_(old + value, alpha=(t - before) / 2)
            before = t
        h, start, w = high - low, first, value - first
        if t1 < t0:
            start, w = value, -w
        return w, math.copysign(1, t1 - t0) * (total - h * start)

    def at(self, t: Tensor) -> Tensor:
        r"""Returns the path at a time, of shape () or (B,), like the state; it is 0 at -32."""

        known = self.__dict__.get("_recent")
        if known is not None and torch.equal(known[0], t):
            return known[1]  # type: ignore[no-any-return]
        self.__dict__["_recent"] = (t, self._at(t))
        return self.__dict__["_recent"][1]  # type: ignore[no-any-return]

    def _at(self, t: Tensor) -> Tensor:
        place = ((t + SPAN / 2) / SPAN * 2**LEVELS).cpu()
        if not bool(((place >= 0) & (place < 2**LEVELS)).all()):
            raise ValueError(f"a path reaches from {-SPAN / 2:g} to {SPAN / 2:g}, but t is {t}.")
        leaf = place.floor().long()
        left, right = self._shared(int(leaf)) if t.ndim == 0 else self._each(leaf)
        [theta] = scalars((place - leaf)[None], left)
        [deviation] = scalars(
            ((place - leaf) * (1 + leaf - place) * RESOLUTION).sqrt()[None], left
        )
        x = torch.lerp(left, right, theta)
        if isinstance(deviation, float) and deviation == 0:
            return x
        return add_product(x, self.normal(TREE, 2**LEVELS + leaf), deviation)

    def _shared(self, leaf: int) -> tuple[Tensor, Tensor]:
        r"""The path at both ends of an interval that all samples ask for."""

        known = self._last
        while known and leaf >> (LEVELS - len(known) + 1) != known[-1].number:
            known.pop()
        if not known:
            end = self.normal(TREE, 0).mul_(math.sqrt(SPAN))
            known.append(_Interval(0, torch.zeros_like(end), end))
        while len(known) <= LEVELS:
            last, number = known[-1], leaf >> (LEVELS - len(known))
            if last.middle is None:
                last.middle = self._middle(last.left, last.right, len(known), last.number)
            ends = (last.middle, last.right) if number % 2 else (last.left, last.middle)
            known.append(_Interval(number, *ends))
        return known[-1].left, known[-1].right

    def _each(self, leaf: Tensor) -> tuple[Tensor, Tensor]:
        r"""The path at both ends of the intervals of the samples."""

        right = self.normal(TREE, 0).mul_(math.sqrt(SPAN))
        left, number = torch.zeros_like(right), torch.zeros_like(leaf)
        for level in range(1, LEVELS + 1):
            middle = self._middle(left, right, level, number)
            number = leaf >> (LEVELS - level)
            upper = align((number % 2 == 1).to(left.device), left)
            left, right = torch.where(upper, middle, left), torch.where(upper, right, middle)
        return left, right

    def _middle(self, left: Tensor, right: Tensor, level: int, number: int | Tensor) -> Tensor:
        length = SPAN / 2 ** (level - 1)
        z = self.normal(TREE, 2 ** (level - 1) + number)
        return torch.lerp(left, right, 0.5).add_(z, alpha=math.sqrt(length) / 2)

    @property
    def _last(self) -> list[_Interval]:
        return self.__dict__.setdefault("_intervals", [])  # a cache: it changes no result
