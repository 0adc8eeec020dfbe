r"""The part of a distribution between two noise levels, on which an expert is trained."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ...models.checks import check_interval
from ...processes.process import Process
from .distribution import Levels


@checked
@dataclass(frozen=True)
class Between(Levels):
    r"""Creates the levels of another distribution that lie in an interval of noise levels.

    Networks trained on adjacent intervals are the experts of :func:`scoresde.guidance.experts`.

    Arguments:
        levels: The distribution.
        interval: The noise levels :math:`\sigma / \alpha`, the lower first; 0 and `inf` stand for no limit.

    Examples:
        >>> fine = ss.losses.levels.Between(ss.losses.levels.LogNormal(), (0.0, 0.3))
        >>> round(float(torch.exp(-fine.log_snr(ss.EDM(), 1.0))), 4)
        0.3
    """

    levels: Levels
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def _shares(self, process: Process) -> tuple[Tensor, Tensor]:
        ends = [math.inf if end == 0 else -math.log(end) for end in map(float, self.interval)]
        edges = (torch.tensor(end, dtype=torch.float64).clamp(-1e3, 1e3) for end in ends)
        low, high = (self.levels.share(process, edge) for edge in edges)
        if not bool(high - low > 1e-12):
            raise ValueError(
                f"interval={tuple(self.interval)} holds none of the noise levels of {self.levels} in {process}."
            )
        return low, high

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        low, high = self._shares(process)
        return self.levels.log_snr(process, torch.lerp(low.to(share), high.to(share), share))

    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        low, high = (end.to(log_snr) for end in self._shares(process))
        return ((self.levels.share(process, log_snr) - low) / (high - low)).clamp(0, 1)

    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        low, high = (end.to(log_snr) for end in self._shares(process))
        share = self.levels.share(process, log_snr)
        inside = (share >= low) & (share <= high)
        return torch.where(inside, self.levels.density(process, log_snr) / (high - low), 0.0)
