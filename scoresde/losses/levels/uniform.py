r"""Levels that are uniform in log-SNR or in time."""

import math
from dataclasses import dataclass

from torch import Tensor

from solvers.doors.signatures import checked

from ...doors.amounts import positive
from ...processes.process import Process
from .distribution import Levels, level_ends, of_times


@checked
@dataclass(frozen=True)
class LogUniform(Levels):
    r"""Creates noise levels that are uniform in log-SNR.

    For any process, these are the times with the density :math:`g^2 / \sigma^2`, with which the weights of the
    evidence lower bound are even.

    Arguments:
        sigma_min: The smallest noise level :math:`\sigma / \alpha`. By default, that of the process.
        sigma_max: The largest noise level. By default, that of the process.

    References:
        | Variational Diffusion Models (Kingma et al., 2021), section 5.1
        | https://arxiv.org/abs/2107.00630

    Examples:
        >>> ss.losses.levels.LogUniform().log_snr(ss.VE(ss.Geometric(0.01, 100.0)), [0.0, 1.0])
        tensor([ 4.6052, -4.6052], dtype=torch.float64)
    """

    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        low, high = self.sigma_min, self.sigma_max
        for name in ("sigma_min", "sigma_max"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        if low is not None and high is not None and not low < high:
            raise ValueError(f"sigma_min must be below sigma_max, but they are {low} and {high}.")

    def ends(self, process: Process) -> tuple[float, float]:
        r"""Returns the logs of the first and of the last noise level."""

        first, last = level_ends(process)
        first = first if self.sigma_min is None else max(first, math.log(self.sigma_min))
        last = last if self.sigma_max is None else min(last, math.log(self.sigma_max))
        if not first < last:
            low, high = map(math.exp, level_ends(process))
            raise ValueError(
                f"sigma_min={self.sigma_min} and sigma_max={self.sigma_max} leave no level of the process, whose "
                f"levels are [{low:.4g}, {high:.4g}]."
            )
        return first, last

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        first, last = self.ends(process)
        return -(first + (last - first) * share)

    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        first, last = self.ends(process)
        return ((-log_snr - first) / (last - first)).clamp(0, 1)

    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        first, last = self.ends(process)
        inside = (-log_snr >= first - 1e-9) & (-log_snr <= last + 1e-9)
        return inside.double() / (last - first)


@checked
@dataclass(frozen=True)
class TimeUniform(Levels):
    r"""Creates noise levels at uniform times, from `t_min` to `t_max` of the process.

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), algorithm 1
        | https://arxiv.org/abs/2006.11239

    Examples:
        >>> ss.losses.levels.TimeUniform().log_snr(ss.Interpolant(), 0.5)
        tensor(0., dtype=torch.float64)
    """

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        t = process.t_min + (process.t_max - process.t_min) * share
        return process.log_snr(t.clamp(process.t_min, process.t_max))

    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        return (process.time(log_snr) - process.t_min) / (process.t_max - process.t_min)

    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        return of_times(process, log_snr, lambda t: 1 / (process.t_max - process.t_min))
