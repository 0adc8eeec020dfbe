r"""The standard processes: each defines how signal and noise are scaled for a schedule."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, get_args

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from .once import once
from .process import Process, Use
from .schedules import Geometric, Karras, LinearBeta, Logit, Schedule, softplus


@dataclass(frozen=True, repr=False)
class Scheduled(Process):
    r"""Abstract process with a noise schedule.

    Arguments:
        schedule: The noise schedule.
        t_min: The first time. By default, the schedule's.
        t_max: The last time. By default, the schedule's.
    """

    schedule: Schedule
    t_min: float = field(default=math.nan)
    t_max: float = field(default=math.nan)
    grid: ClassVar[str] = "rho"

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise TypeError(
                f"schedule must be a schedule such as ss.Cosine(), but is {self.schedule!r}."
            )
        for name, default in zip(("t_min", "t_max"), self.schedule.domain, strict=True):
            said = getattr(self, name)
            if isinstance(said, float) and math.isnan(said):
                object.__setattr__(self, name, default)
        self._check()

    @cached_property
    def is_constant(self) -> bool:
        return self.constant and self.schedule.constant

    @property
    def said_levels(self) -> tuple[float | None, float | None]:
        return self.schedule.said

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.bare_inverse(log_snr).clamp(self.t_min, self.t_max)

    @once
    def _words(self) -> str:
        uses = ", ".join(f"{use} from {self.bare_start_of(use):.3g}" for use in get_args(Use)[:2])
        span = f"t in [{self.t_min:.3g}, {self.t_max:.3g}]"
        return f"{type(self).__name__}({self.schedule}, {span}, {uses})"

    def __repr__(self) -> str:
        return self._words()


@checked
@dataclass(frozen=True, repr=False)
class VP(Scheduled, constant=True):
    r"""Creates a variance-preserving process, :math:`\alpha^2 + \sigma^2 = 1`.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), section 3.4
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> alpha, sigma = ss.VP().scales(torch.tensor(0.5))
        >>> round(float(alpha**2 + sigma**2), 4)
        1.0
    """

    schedule: Schedule = field(default_factory=LinearBeta)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.schedule.bare_call(t)
        return -softplus(-2 * log_snr) / 2, -softplus(2 * log_snr) / 2


@checked
@dataclass(frozen=True, repr=False)
class SubVP(Scheduled, constant=True):
    r"""Creates a sub-VP process, with the :math:`\alpha` of VP and the square of its :math:`\sigma`.

    The schedule is that of VP.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (29)
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> alpha, sigma = ss.SubVP().scales(torch.tensor(0.5))
        >>> round(float(alpha**2 + sigma), 4)
        1.0
    """

    schedule: Schedule = field(default_factory=LinearBeta)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.schedule.bare_call(t)
        return -softplus(-2 * log_snr) / 2, -softplus(2 * log_snr)

    def time(self, log_snr: Tensor) -> Tensor:
        # With r = alpha / sigma and sigma = 1 - alpha^2, 1 / alpha - alpha = 1 / r = 2 sinh(s) for
        # alpha = exp(-s), and the log-SNR of VP is -log(exp(2 s) - 1) / 2.
        s = torch.asinh(torch.exp(-log_snr) / 2)
        return self.schedule.bare_inverse(-torch.expm1(2 * s).log() / 2).clamp(
            self.t_min, self.t_max
        )


@checked
@dataclass(frozen=True, repr=False)
class VE(Scheduled, constant=True):
    r"""Creates a variance-exploding process, :math:`\alpha = 1`.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), section 3.4
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> alpha, sigma = ss.VE(ss.Geometric(0.01, 100.0)).scales(torch.tensor(0.5))
        >>> float(alpha), round(float(sigma), 4)
        (1.0, 1.0)
    """

    schedule: Schedule = field(default_factory=Geometric)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), -self.schedule.bare_call(t)


@checked
@dataclass(frozen=True, repr=False)
class EDM(VE, constant=True):
    r"""Creates the process :math:`\alpha = 1, \sigma = t`, with t in [0.002, 80] by default.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | https://arxiv.org/abs/2206.00364

    Examples:
        >>> alpha, sigma = ss.EDM().scales(torch.tensor(3.0))
        >>> float(alpha), float(sigma)
        (1.0, 3.0)
    """

    schedule: Schedule = field(default_factory=Karras)


@checked
@dataclass(frozen=True, repr=False)
class Interpolant(Scheduled, constant=True):
    r"""Creates a linear interpolant, :math:`\alpha + \sigma = 1`, as in rectified flow.

    Data is at t = 0, whereas flow libraries count time the other way.

    References:
        | Flow Straight and Fast (Liu et al., 2023), equation (1)
        | https://arxiv.org/abs/2209.03003

    Examples:
        >>> alpha, sigma = ss.Interpolant().scales(torch.tensor(0.25))
        >>> round(float(alpha), 4), round(float(sigma), 4)
        (0.75, 0.25)
    """

    schedule: Schedule = field(default_factory=Logit)
    grid: ClassVar[str] = "logistic"

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.schedule.bare_call(t)
        return -softplus(-log_snr), -softplus(log_snr)
