r"""Normal laws of the logarithm of the noise level, and of the logit of time."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ...doors.amounts import positive
from ...models.checks import check_finite
from ...processes.process import Process
from .distribution import Levels, level_ends, of_times


class _Normal(Levels):
    r"""A normal law of a coordinate of the noise level, cut to the domain."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        check_finite("mean", self.mean)
        positive("std", self.std)

    @abstractmethod
    def ends(self, process: Process) -> tuple[float, float]:
        r"""Returns the coordinates of the ends of the domain."""

    def _standard(self, coordinate: Tensor | float) -> Tensor:
        return (torch.as_tensor(coordinate, dtype=torch.float64) - self.mean) / self.std

    def _bounds(self, process: Process) -> tuple[Tensor, Tensor]:
        first, last = (torch.special.ndtr(self._standard(end)) for end in self.ends(process))
        if not bool(last - first > 1e-12):
            raise ValueError(
                f"mean={self.mean:.4g} and std={self.std:.4g} put no level inside the domain of {process}."
            )
        return first, last

    def coordinate(self, process: Process, share: Tensor) -> Tensor:
        r"""Returns the inverse distribution function."""

        low, high = self._bounds(process)
        first, last = self.ends(process)
        z = torch.special.ndtri(torch.lerp(low.to(share), high.to(share), share))
        return (self.mean + self.std * z).clamp(first, last)

    def below(self, process: Process, coordinate: Tensor) -> Tensor:
        r"""Returns the distribution function."""

        low, high = self._bounds(process)
        share = (torch.special.ndtr(self._standard(coordinate)) - low.to(coordinate)) / (
            high - low
        ).to(coordinate)
        return share.clamp(0, 1)

    def density_at(self, process: Process, coordinate: Tensor) -> Tensor:
        r"""Returns the density of the coordinate."""

        (low, high), (first, last) = self._bounds(process), self.ends(process)
        inside = (coordinate >= first - 1e-9) & (coordinate <= last + 1e-9)
        square = self._standard(coordinate).square()
        scale = self.std * math.sqrt(2 * math.pi) * (high - low).item()
        return torch.where(inside, torch.exp(-square / 2) / scale, 0.0)


@checked
@dataclass(frozen=True)
class LogNormal(_Normal):
    r"""Creates normal logarithms of the noise level, :math:`\log (\sigma / \alpha) \sim \mathcal{N}(m, s^2)`.

    Arguments:
        mean: The mean m of the logarithm.
        std: Its standard deviation s.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), section 5
        | https://arxiv.org/abs/2206.00364

    Examples:
        >>> ss.losses.levels.LogNormal(-1.2, 1.2).log_snr(ss.EDM(), 0.5)
        tensor(1.2000, dtype=torch.float64)
    """

    mean: float = -1.2
    std: float = 1.2

    def ends(self, process: Process) -> tuple[float, float]:
        return level_ends(process)

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        return -self.coordinate(process, share)

    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        return self.below(process, -log_snr)

    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        return self.density_at(process, -log_snr)


@checked
@dataclass(frozen=True)
class TimeLogitNormal(_Normal):
    r"""Creates times whose logits are normal, :math:`\log (t / (1 - t)) \sim \mathcal{N}(m, s^2)`.

    For :class:`scoresde.Interpolant`, whose logit of t is the logarithm of the noise level, this is
    :class:`scoresde.losses.levels.LogNormal`. Other processes need times in [0, 1], too.

    Arguments:
        mean: The mean m of the logit; negative ones prefer times near the data.
        std: Its standard deviation s.

    References:
        | Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024),
        | equation (19)
        | https://arxiv.org/abs/2403.03206

    Examples:
        >>> ss.losses.levels.TimeLogitNormal().log_snr(ss.Interpolant(), 0.5)
        tensor(0., dtype=torch.float64)
    """

    mean: float = 0.0
    std: float = 1.0

    def ends(self, process: Process) -> tuple[float, float]:
        if process.t_max > 1:
            raise ValueError(
                f"process must have times in [0, 1] for TimeLogitNormal, but t_max={process.t_max:.4g}; use "
                "LogNormal(), the same for the noise level."
            )
        ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
        first, last = torch.logit(ends).tolist()
        return first, last

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        t = torch.sigmoid(self.coordinate(process, share))
        return process.log_snr(t.clamp(process.t_min, process.t_max))

    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        return self.below(process, torch.logit(process.time(log_snr)))

    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        return of_times(
            process,
            log_snr,
            lambda t: self.density_at(process, torch.logit(t)) / (t * (1 - t)),
        )
