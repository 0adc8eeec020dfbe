r"""Forward processes: how signal and noise are scaled.

A process turns data into noise through the linear SDE :math:`dx = f(t) x \, dt + g(t) \, dw`,
whose transition kernel is

.. math:: p(x_t \mid x_0) = \mathcal{N}(x_t \mid \alpha_t x_0, \sigma_t^2 I) .

A subclass only says what :math:`\log \alpha` and :math:`\log \sigma` are. With
:math:`\lambda = \log (\alpha / \sigma)`, the rest follows: :math:`f = \partial_t \log \alpha_t` and
:math:`g^2 = \partial_t \sigma_t^2 - 2 f \sigma_t^2 = -2 \sigma_t^2 \, \partial_t \lambda`.

References:
    | Variational Diffusion Models (Kingma et al., 2021), appendix L
    | https://arxiv.org/abs/2107.00630
"""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from solvers.brownian import START, keyed_normal
from solvers.shapes import align

from .schedules import Geometric, Karras, LinearBeta, Logit, Schedule

PRIOR_GAP = 1e-2  # nats per dimension from which on a warning is due
NOISE_LEVELS = {"sampling": 1e-2, "likelihood": 1e-3, "encoding": 1e-3}  # sigma / alpha at t_min
Use = Literal["sampling", "likelihood", "encoding"]


class Process(ABC):
    r"""Abstract forward process, with domain [`t_min`, `t_max`]."""

    t_min: float
    t_max: float

    @abstractmethod
    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\log \alpha_t` and :math:`\log \sigma_t`, with the shape of `t`."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\alpha_t` and :math:`\sigma_t`, with the shape of `t`."""

        log_alpha, log_sigma = self.log_scales(t)
        return log_alpha.exp(), log_sigma.exp()

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Returns :math:`\lambda_t = \log (\alpha_t / \sigma_t)`, with the shape of `t`."""

        log_alpha, log_sigma = self.log_scales(t)
        return log_alpha - log_sigma

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        r"""Returns the inverse of :meth:`log_snr`, inside the domain."""

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\partial_t \log \alpha_t` and :math:`\partial_t \lambda_t`, like `t`."""

        u = t.detach().reshape(-1)  # the tangent of a 0-d float32 tensor may be a float64
        f, s = torch.func.jvp(self.log_scales, (u,), (torch.ones_like(u),))[1]
        return f.reshape(t.shape), (f - s).reshape(t.shape)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the drift :math:`f(t) x`, with shape (B, *)."""

        return align(self.rates(t)[0].to(x), x) * x

    def diffusion(self, t: Tensor) -> Tensor:
        r"""Returns the diffusion :math:`g(t)`, with the shape of `t`."""

        return self.scales(t)[1] * torch.sqrt(-2 * self.rates(t)[1])

    def perturb(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        r"""Returns :math:`x_t = \alpha_t x + \sigma_t z`.

        Arguments:
            x: Clean data, with shape (B, *).
            t: The time, with shape () or (B,).
            z: Standard noise, with shape (B, *).
        """

        alpha, sigma = (align(scale, x) for scale in self.scales(t))
        return alpha * x + sigma * z

    def prior_std(self) -> float:
        r"""Returns the standard deviation :math:`\sigma` of the prior, at `t_max`."""

        return float(self.scales(torch.tensor(self.t_max, dtype=torch.float64))[1])

    def prior_sample(
        self,
        shape: tuple[int, ...],
        *,
        seed: int = 0,
        first_index: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draws from the prior :math:`\mathcal{N}(0, \sigma_{t_{max}}^2 I)`.

        Arguments:
            shape: The shape (B, *).
            seed: The seed. Row i depends on it and on `first_index + i` alone.
            first_index: The index of the first sample.
            dtype: The dtype. By default, PyTorch's.
            device: The device. By default, the CPU.
        """

        index = torch.arange(first_index, first_index + shape[0], device=device)
        z = keyed_normal(seed, index, START, 0, math.prod(shape[1:])) * self.prior_std()
        return z.to(dtype or torch.get_default_dtype()).reshape(shape)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        r"""Returns the log-density of the prior in nats, with shape (B,), in float64."""

        std = self.prior_std()
        square = (z.flatten(1).double() / std).square().sum(1)
        return -square / 2 - z[0].numel() * math.log(std * math.sqrt(2 * math.pi))

    def prior_gap(self, data_std: float = 1.0) -> float:
        r"""Returns the KL divergence from the prior to :math:`p(x_{t_{max}} \mid x_0)`.

        It is :math:`\alpha^2 s^2 / (2 \sigma^2)` nats per dimension, for data of root mean square s.
        """

        return math.exp(2 * float(self.log_snr(_time(self.t_max)))) * data_std**2 / 2

    def noise_level(self, t: float) -> float:
        r"""Returns :math:`\sigma_t / \alpha_t`."""

        return math.exp(-float(self.log_snr(_time(t))))

    def at_noise_level(self, level: float) -> float:
        r"""Returns the time at which :math:`\sigma_t / \alpha_t` is `level`, inside the domain."""

        return float(self.time(-torch.tensor(level, dtype=torch.float64).log()))

    def start_of(self, use: Use) -> float:
        r"""Returns the default of `t_min` for a use, by its noise level."""

        return self.at_noise_level(NOISE_LEVELS[use])

    def describe(self, t: float) -> str:
        r"""Returns a time in words."""

        return f"t={t:.4g} (sigma/alpha={self.noise_level(t):.3g})"

    def check_inside(self, name: str, t: float) -> None:
        r"""Refuses a time outside the domain."""

        if not self.t_min <= t <= self.t_max:
            raise ValueError(
                f"{name} must lie in [{self.t_min:.4g}, {self.t_max:.4g}], the domain of "
                f"{type(self).__name__}, but is {t:.4g}."
            )

    def _check(self) -> None:
        t = torch.linspace(self.t_min, self.t_max, 33, dtype=torch.float64)
        if not 0 <= self.t_min < self.t_max < math.inf:
            raise ValueError(f"need 0 <= t_min < t_max, but got {self.t_min} and {self.t_max}.")
        log_snr = self.log_snr(t)
        if not bool(log_snr.isfinite().all()):
            where = float(t[~log_snr.isfinite()][0])
            raise ValueError(
                f"{type(self).__name__} has no finite log-SNR at t={where:.4g}; choose t_min and "
                "t_max so that signal and noise are positive between them."
            )
        if not bool((log_snr.diff() < 0).all()):
            where = float(t[:-1][log_snr.diff() >= 0][0])
            raise ValueError(
                f"log-SNR must decrease in time, but it does not at t={where:.4g}; data is at "
                "t_min and noise at t_max."
            )
        self.check_rates(self.drift(torch.ones_like(t)[:, None], t)[:, 0], self.diffusion(t), t)
        gap = self.prior_gap()
        if gap > PRIOR_GAP:
            warnings.warn(
                f"at t_max={self.t_max:.4g}, the prior is {gap:.3g} nats per dimension from the "
                "noised data (of unit variance): samples and likelihoods will be biased; add more "
                "noise or raise t_max.",
                stacklevel=4,
            )

    def check_rates(self, f: Tensor, g: Tensor, t: Tensor) -> None:
        r"""Refuses a drift f(t) and a diffusion g(t) that are not those of the scales."""

        sigma = self.scales(t)[1]
        log_alpha_rate, log_snr_rate = Process.rates(self, t)
        want = {"drift": log_alpha_rate, "diffusion": sigma * torch.sqrt(-2 * log_snr_rate)}
        for (name, right), given in zip(want.items(), (f, g), strict=True):
            wrong = (given - right).abs() > 1e-4 * right.abs() + 1e-8
            if bool(wrong.any()):
                i = int(wrong.nonzero()[0])
                raise ValueError(
                    f"the {name} at t={t[i]:.4g} is {given[i]:.6g}, but alpha and sigma imply "
                    f"{right[i]:.6g}: f = d log alpha/dt and g^2 = d sigma^2/dt - 2 f sigma^2."
                )


def _time(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


@dataclass(frozen=True, repr=False)
class Scheduled(Process):
    r"""Abstract process of a noise schedule.

    Arguments:
        schedule: The noise schedule.
        t_min: The first time. By default, the schedule's.
        t_max: The last time. By default, the schedule's.
    """

    schedule: Schedule
    t_min: float = field(default=math.nan)
    t_max: float = field(default=math.nan)

    def __post_init__(self) -> None:
        for name, default in zip(("t_min", "t_max"), self.schedule.domain, strict=True):
            if math.isnan(getattr(self, name)):
                object.__setattr__(self, name, default)
        self._check()

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.inverse(log_snr).clamp(self.t_min, self.t_max)

    def __repr__(self) -> str:
        uses = ", ".join(
            f"{use} from {self.start_of(use):.3g}" for use in ("sampling", "likelihood")
        )  # type: ignore[arg-type]
        span = f"t in [{self.t_min:.3g}, {self.t_max:.3g}]"
        return f"{type(self).__name__}({self.schedule}, {span}, {uses})"


@dataclass(frozen=True, repr=False)
class VP(Scheduled):
    r"""Creates a variance preserving process, :math:`\alpha^2 + \sigma^2 = 1`.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), section 3.4
        | https://arxiv.org/abs/2011.13456
    """

    schedule: Schedule = field(default_factory=LinearBeta)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.schedule(t)
        return F.logsigmoid(2 * log_snr) / 2, F.logsigmoid(-2 * log_snr) / 2


@dataclass(frozen=True, repr=False)
class SubVP(Scheduled):
    r"""Creates a sub-VP process, with the :math:`\alpha` of VP and its :math:`\sigma` squared.

    The schedule is the one of VP.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (29)
        | https://arxiv.org/abs/2011.13456
    """

    schedule: Schedule = field(default_factory=LinearBeta)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.schedule(t)
        return F.logsigmoid(2 * log_snr) / 2, F.logsigmoid(-2 * log_snr)

    def time(self, log_snr: Tensor) -> Tensor:
        # With r = alpha / sigma and sigma = 1 - alpha^2, 1 / alpha - alpha = 1 / r = 2 sinh(s) for
        # alpha = exp(-s), and the log-SNR of VP is -log(exp(2 s) - 1) / 2.
        s = torch.asinh(torch.exp(-log_snr) / 2)
        return self.schedule.inverse(-torch.expm1(2 * s).log() / 2).clamp(self.t_min, self.t_max)


@dataclass(frozen=True, repr=False)
class VE(Scheduled):
    r"""Creates a variance exploding process, :math:`\alpha = 1`.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), section 3.4
        | https://arxiv.org/abs/2011.13456
    """

    schedule: Schedule = field(default_factory=Geometric)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), -self.schedule(t)


@dataclass(frozen=True, repr=False)
class EDM(VE):
    r"""Creates the process :math:`\alpha = 1, \sigma = t`, with t in [0.002, 80] by default.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | https://arxiv.org/abs/2206.00364
    """

    schedule: Schedule = field(default_factory=Karras)


@dataclass(frozen=True, repr=False)
class Interpolant(Scheduled):
    r"""Creates a linear interpolant, :math:`\alpha + \sigma = 1`, as in rectified flow.

    Flow libraries count time the other way: data is at t = 0 here.

    References:
        | Flow Straight and Fast (Liu et al., 2023), equation (1)
        | https://arxiv.org/abs/2209.03003
    """

    schedule: Schedule = field(default_factory=Logit)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.schedule(t)
        return F.logsigmoid(log_snr), F.logsigmoid(-log_snr)
