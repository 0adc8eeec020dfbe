r"""Noise schedules: how much noise there is at each time.

A schedule is a strictly decreasing function :math:`\lambda(t)` of time, the log of the signal-to-noise ratio,
:math:`\log (\alpha / \sigma)`, together with its inverse. How signal and noise are scaled for a given
:math:`\lambda` is up to the process (:mod:`scoresde.processes.standard`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from solvers.doors.signatures import checked, with_doors

from ..doors.amounts import positive
from ..doors.data import as_times

Angle = TypeVar("Angle", float, Tensor)


class Schedule(ABC):
    r"""Abstract noise schedule.

    Attributes:
        domain: The first and last time of its intended use.
        constant: Whether it depends on nothing but its fields, as in :class:`scoresde.Process`.
        said: The smallest and the largest noise level if the user set them, otherwise `None`. Sampling goes down
            to the smallest, and grids begin at the largest.

    Examples:
        >>> schedule = ss.VP().schedule
        >>> round(float(schedule.inverse(schedule(torch.tensor(0.25)))), 4)
        0.25
    """

    instead: ClassVar[str] = "; pass ss.Cosine() or another"
    constant: ClassVar[bool] = False
    bare_call: Callable[[Tensor], Tensor]  # the same without argument checks
    bare_inverse: Callable[[Tensor], Tensor]

    def __init_subclass__(cls, *, constant: bool = False, **keywords: object) -> None:
        r"""Adds the common argument checks to the functions of a schedule."""

        super().__init_subclass__(**keywords)
        cls.constant = constant
        with_doors(cls, {"__call__": {"t": as_times}, "inverse": {"log_snr": as_times}})

    @property
    def domain(self) -> tuple[float, float]:
        return 1e-3, 0.999

    @property
    def said(self) -> tuple[float | None, float | None]:
        return None, None

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        r"""Returns :math:`\lambda(t)`, with the shape of `t`."""

    @abstractmethod
    def inverse(self, log_snr: Tensor) -> Tensor:
        r"""Returns the :math:`t` for which `log_snr` is :math:`\lambda(t)`."""


@checked
@dataclass(frozen=True)
class LinearBeta(Schedule, constant=True):
    r"""Creates the schedule with a linear :math:`\beta`.

    .. math:: \lambda(t) = - \log (e^{B(t)} - 1) / 2 , \qquad
        B(t) = \int_0^t \beta = \beta_0 t + (\beta_1 - \beta_0) t^2 / 2

    Arguments:
        beta_min: The value :math:`\beta_0` at time 0.
        beta_max: The value :math:`\beta_1` at time 1.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (32)
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> round(float(ss.LinearBeta(0.1, 20.0)(torch.tensor(1.0))), 3)  # - log(exp(10.05) - 1) / 2
        -5.025
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check_order("beta_min", self.beta_min, "beta_max", self.beta_max)

    @property
    def domain(self) -> tuple[float, float]:
        return 1e-5, 1.0

    def __call__(self, t: Tensor) -> Tensor:
        B = self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2
        return -torch.log(torch.expm1(B)) / 2

    def inverse(self, log_snr: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        B = softplus(-2 * log_snr)
        return 2 * B / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * B))


@checked
@dataclass(frozen=True)
class Cosine(Schedule, constant=True):
    r"""Creates the cosine schedule.

    .. math:: \alpha^2 = \cos^2 (u) / \cos^2 (u_0) , \qquad
        u = \frac{\pi}{2} \frac{t + s}{1 + s} , \quad u_0 = u(0)

    for a process with :math:`\alpha^2 + \sigma^2 = 1`. It ends before t = 1, where no signal is left.

    Arguments:
        offset: The offset :math:`s`.

    References:
        | Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), eq. (17)
        | https://arxiv.org/abs/2102.09672

    Examples:
        >>> log_snr = ss.Cosine(offset=0.008)(torch.tensor(0.5))
        >>> alpha, sigma = ss.VP(ss.Cosine()).scales(torch.tensor(0.5))
        >>> bool(torch.isclose(log_snr, (alpha / sigma).log()))
        True
    """

    offset: float = 0.008

    def __post_init__(self) -> None:
        positive("offset", self.offset, most=1.0, zero=True)

    @property
    def domain(self) -> tuple[float, float]:
        return 1e-5, 0.999

    def __call__(self, t: Tensor) -> Tensor:
        u, u0 = self._angle(t), self._angle(0.0)
        noise = torch.sin(u - u0).log() + torch.sin(u + u0).log()  # sin^2 u - sin^2 u0
        return torch.cos(u).log() - noise / 2

    def inverse(self, log_snr: Tensor) -> Tensor:
        u0 = self._angle(0.0)
        signal, noise = sigmoid(2 * log_snr), sigmoid(-2 * log_snr)
        cos2 = math.cos(u0) ** 2
        u = torch.atan(((math.sin(u0) ** 2 + cos2 * noise) / (cos2 * signal)).sqrt())
        return (u - u0) * (1 + self.offset) * 2 / math.pi

    def _angle(self, t: Angle) -> Angle:
        return (t + self.offset) * (math.pi / 2 / (1 + self.offset))


@checked
@dataclass(frozen=True)
class Geometric(Schedule, constant=True):
    r"""Creates the schedule whose noise-to-signal ratio grows geometrically.

    .. math:: \lambda(t) = - (1 - t) \log \sigma_{min} - t \log \sigma_{max}

    Arguments:
        sigma_min: The noise-to-signal ratio at time 0.
        sigma_max: The noise-to-signal ratio at time 1.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (30)
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> log_snr = ss.Geometric(0.01, 50.0)(torch.tensor(0.5))
        >>> round(float(log_snr.exp()), 4)  # 1 / sqrt(0.01 * 50)
        1.4142
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        _check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def domain(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def said(self) -> tuple[float | None, float | None]:
        return _unless_default(self), self.sigma_max

    def __call__(self, t: Tensor) -> Tensor:
        return -math.log(self.sigma_min) - t * math.log(self.sigma_max / self.sigma_min)

    def inverse(self, log_snr: Tensor) -> Tensor:
        span = math.log(self.sigma_max / self.sigma_min)
        return (-math.log(self.sigma_min) - log_snr) / span


@checked
@dataclass(frozen=True)
class Karras(Schedule, constant=True):
    r"""Creates the schedule whose time is the noise-to-signal ratio, :math:`\lambda = -\log t`.

    Arguments:
        sigma_min: The first time.
        sigma_max: The last time.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        | table 1
        | https://arxiv.org/abs/2206.00364

    Examples:
        >>> round(float(ss.Karras()(torch.tensor(2.0))), 4)  # - log 2
        -0.6931
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def domain(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    @property
    def said(self) -> tuple[float | None, float | None]:
        return _unless_default(self), self.sigma_max

    def __call__(self, t: Tensor) -> Tensor:
        return -torch.log(t)

    def inverse(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr)


@dataclass(frozen=True)
class Logit(Schedule, constant=True):
    r"""Creates the schedule :math:`\lambda(t) = \log ((1 - t) / t)` of rectified flow.

    References:
        | Flow Straight and Fast (Liu et al., 2023), equation (1)
        | https://arxiv.org/abs/2209.03003

    Examples:
        >>> round(float(ss.Logit()(torch.tensor(0.25)).exp()), 4)  # 0.75 / 0.25
        3.0
    """

    def __call__(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def inverse(self, log_snr: Tensor) -> Tensor:
        return sigmoid(-log_snr)


def softplus(x: Tensor) -> Tensor:
    r"""Returns :math:`\log (1 + e^x)`, exact to round-off and independent of its place in a tensor.

    PyTorch's own version is linear from 20 on, and uses a different routine for the last entries of a tensor, so
    that part of a grid would not have the bits of the whole grid.
    """

    return x / 2 + x.abs() / 2 + torch.log1p(torch.exp(-x.abs()))


def sigmoid(x: Tensor) -> Tensor:
    r"""Returns :math:`1 / (1 + e^{-x})`, with the same properties."""

    return torch.exp(-softplus(-x))


def invert(
    function: Callable[[Tensor], Tensor], values: Tensor, domain: tuple[float, float]
) -> Tensor:
    r"""Returns the points where a decreasing function takes the given values, by bisection of its domain."""

    low = torch.full_like(values, domain[0])
    high = torch.full_like(values, domain[1])
    for _ in range(64):  # bisections of a span of 1 down to the spacing of float64
        middle = (low + high) / 2
        above = function(middle) > values
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def _unless_default(schedule: Geometric | Karras) -> float | None:
    r"""The smallest noise level, unless it is the default, which the user did not set."""

    return None if schedule.sigma_min == type(schedule).sigma_min else schedule.sigma_min


def _check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    for name, value in ((low_name, low), (high_name, high)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, but is {value!r}.")
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"{low_name} and {high_name} must satisfy 0 < {low_name} < {high_name}, but are {low} and "
            f"{high}."
        )
