r"""The times of a process."""

from functools import partial

import torch
from torch import Tensor

from ..doors.amounts import positive

SLACK, ROUNDING = 1e-6, 2.0**-23  # of times in float32, and of times that they are differences of
_time = partial(torch.tensor, dtype=torch.float64)


class Domain:
    r"""The times from `t_min` to `t_max`, and checks that times lie between them."""

    t_min: float
    t_max: float

    def inside(self, name: str, times: Tensor) -> Tensor:
        r"""Returns times inside the domain; those outside by no more than float32 rounding become its ends.

        The first and last time of a grid become the ends if they equal them in float32.

        Arguments:
            name: The name of the argument.
            times: The times, with shape (), or those of a grid, with shape (n, \*).

        Raises:
            ValueError: If a time is outside by more.
        """

        low, high = times.min().item(), times.max().item()
        slack = max(SLACK * self.t_min, min(ROUNDING * self.t_max, 0.01 * self.t_min))
        if low >= self.t_min - slack and high <= self.t_max * (1 + SLACK):
            times = times.clamp(self.t_min, self.t_max)
            ends = times[[0, -1]] if times.ndim else times
            for end, near in ((self.t_min, slack), (self.t_max, SLACK * self.t_max)):
                close = (ends - end).abs() <= near
                if times.ndim and bool((close & (ends != end)).any()):
                    times[[0, -1]] = ends = torch.where(close, end, ends)
            return times
        found = f"is {low:.9g}" if low == high else f"reach from {low:.9g} to {high:.9g}"
        cure = ""
        if low == 0 < self.t_min:
            cure = "; leave out the final 0 of other libraries' grids, which the last denoising replaces"
        raise ValueError(
            f"{name} must lie in [{self.t_min:.9g}, {self.t_max:.9g}], the domain of "
            f"{type(self).__name__}, but {found}{cure}."
        )

    def check_inside(self, name: str, t: float) -> float:
        r"""Returns a time inside the domain, as :meth:`inside` does."""

        if type(t) is float and self.t_min <= t <= self.t_max:
            return t
        return float(self.inside(name, _time(positive(name, t, zero=True))))

    def _check_ends(self) -> None:
        for name in ("t_min", "t_max"):
            positive(name, getattr(self, name), zero=True)
        if not self.t_min < self.t_max:
            raise ValueError(
                f"t_min and t_max must satisfy 0 <= t_min < t_max, but are {self.t_min} and {self.t_max}."
            )
