r"""Brownian motion of some entries of a state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .brownian import Brownian


@dataclass(frozen=True)
class Partial(Brownian):
    r"""Creates a motion, in the clock of a problem, that leaves some entries at 0.

    Arguments:
        motion: The motion.
        mask: Whether an entry moves, with shape (B, \*) or (1, \*).
    """

    motion: Brownian
    mask: Tensor

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        return self._kept(self.motion.increment(step, t0, t1))

    def increments(
        self, step: int, t0: Tensor, t1: Tensor, inside: Sequence[float]
    ) -> list[Tensor]:
        return [self._kept(w) for w in self.motion.increments(step, t0, t1, inside)]

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        w, area = self.motion.increment_and_integral(step, t0, t1)
        return self._kept(w), self._kept(area)

    def fresh(self, step: int, k: int) -> Tensor:
        return self._kept(self.motion.fresh(step, k))

    def check(self, times: Tensor) -> None:
        self.motion.check(times)

    def rows(self, index: Tensor) -> "Partial":
        mask = self.mask if len(self.mask) == 1 else self.mask[index.to(self.mask.device)]
        return replace(self, motion=self.motion.rows(index), mask=mask)

    def _kept(self, w: Tensor) -> Tensor:
        return torch.where(self.mask.to(w.device), w, 0)
