r"""Brownian motion in another clock and other coordinates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..shapes import align
from .brownian import Brownian


@dataclass(frozen=True)
class Translated(Brownian):
    r"""Creates a Brownian motion in another clock and other coordinates, with increments of the same law.

    .. math:: \tilde w(t_1) - \tilde w(t_0) = S \big( w(v_1) - w(v_0) \big) \sqrt{(t_1 - t_0) / (v_1 - v_0)} ,
        \qquad v_i = v(t_i)

    Arguments:
        motion: The motion.
        clock: The function v(t) from the time of the other clock to that of the motion.
        split: The coordinates S of a state, an orthogonal map.
    """

    motion: Brownian
    clock: Callable[[Tensor], Tensor]
    split: Callable[[Tensor], Tensor]

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        w = self.motion.increment(step, self.clock(t0), self.clock(t1))
        return self.split(w) * self._speed(t0, t1, w).abs().sqrt()

    def increments(
        self, step: int, t0: Tensor, t1: Tensor, inside: Sequence[float]
    ) -> list[Tensor]:
        found = self.motion.increments(step, self.clock(t0), self.clock(t1), inside)
        return [self.split(w) * self._speed(t0, t1, w).abs().sqrt() for w in found]

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        w, area = self.motion.increment_and_integral(step, self.clock(t0), self.clock(t1))
        speed = self._speed(t0, t1, w)
        root = speed.abs().sqrt()
        return self.split(w) * root, self.split(area) * root * speed

    def fresh(self, step: int, k: int) -> Tensor:
        return self.split(self.motion.fresh(step, k))

    def check(self, times: Tensor) -> None:
        self.motion.check(self.clock(times))

    def rows(self, index: Tensor) -> "Translated":
        return replace(self, motion=self.motion.rows(index))

    def _speed(self, t0: Tensor, t1: Tensor, w: Tensor) -> Tensor:
        r"""The relative speed of the clocks, averaged over a step."""

        return align(((t1 - t0) / (self.clock(t1) - self.clock(t0))).to(w), w)
