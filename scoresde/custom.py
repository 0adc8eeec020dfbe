r"""Processes of the user's own: from scales, from a linear drift, or from any drift.

Functions of time take and return float64 tensors of shape (n,), made of PyTorch operations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .process import Process
from .schedules import invert

Rate = Callable[[Tensor], Tensor]
PIECES, POINTS = 256, 8  # of the quadrature: to round-off for smooth rates
NEWTON = 6  # iterations inside a piece, from its middle


@dataclass(frozen=True)
class CustomProcess(Process):
    r"""Creates the process of scales :math:`\alpha(t), \sigma(t)`.

    Arguments:
        alpha: The function :math:`\alpha(t) > 0`.
        sigma: The function :math:`\sigma(t) > 0`.
        t_min: The first time.
        t_max: The last time.
        f: The rate :math:`f(t)` of the drift, if it shall be checked against the scales.
        g: The diffusion :math:`g(t)`, likewise.

    Raises:
        ValueError: If the log-SNR does not decrease, or `f` or `g` are not those of the scales.
    """

    alpha: Rate
    sigma: Rate
    t_min: float = 1e-3
    t_max: float = 1.0
    f: Rate | None = None
    g: Rate | None = None

    def __post_init__(self) -> None:
        self._check()
        t = torch.linspace(self.t_min, self.t_max, 33, dtype=torch.float64)
        derived = self.rates(t)[0], self.diffusion(t)
        f, g = (
            own(t) if own else rate for own, rate in zip((self.f, self.g), derived, strict=True)
        )
        self.check_rates(f, g, t)

    def __repr__(self) -> str:
        return described(self, "alpha", "sigma")

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log(self.alpha(t)), torch.log(self.sigma(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return invert(self.log_snr, log_snr, (self.t_min, self.t_max))


@dataclass(frozen=True)
class LinearProcess(Process):
    r"""Creates the process :math:`dx = f(t) x \, dt + g(t) \, dw`, whose noise starts at t = 0.

    Its scales come by Gauss-Legendre quadrature of

    .. math:: \log \alpha_t = \int_0^t f , \qquad
        \sigma_t^2 = \alpha_t^2 \int_0^t g^2 / \alpha^2 .

    Arguments:
        f: The rate :math:`f(t)`.
        g: The diffusion :math:`g(t) > 0`.
        t_min: The first time.
        t_max: The last time.
    """

    f: Rate
    g: Rate
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        edges = self.t_max * torch.linspace(0, 1, PIECES + 1, dtype=torch.float64) ** 2
        object.__setattr__(self, "_edges", edges)
        zero = torch.zeros(1, dtype=torch.float64)
        for name, rate in (("_log_alpha", self.f), ("_variance", self._growth)):
            pieces = _quadrature(rate, edges[:-1], edges[1:])
            object.__setattr__(self, name, torch.cat([zero, pieces.cumsum(0)]))
        object.__setattr__(self, "_log_snr", self.log_snr(edges[1:]))
        self._check()

    def __repr__(self) -> str:
        return described(self, "f", "g")

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._integral("_log_alpha", self.f, t)
        return log_alpha, log_alpha + self._integral("_variance", self._growth, t).log() / 2

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(t), -(self.g(t) ** 2) / (2 * self.scales(t)[1] ** 2)

    def time(self, log_snr: Tensor) -> Tensor:
        edges, known = vars(self)["_edges"], vars(self)["_log_snr"]
        piece = torch.searchsorted(-known, -log_snr.contiguous()).clamp(max=PIECES - 1)
        low, high = (edges[k].clamp(self.t_min, self.t_max) for k in (piece, piece + 1))
        t = (low + high) / 2
        for _ in range(NEWTON):
            t = t - (self.log_snr(t) - log_snr) / self.rates(t)[1]
            t = torch.minimum(torch.maximum(t, low), high)
        return t

    def _growth(self, t: Tensor) -> Tensor:
        return self.g(t) ** 2 * torch.exp(-2 * self._integral("_log_alpha", self.f, t))

    def _integral(self, table: str, rate: Rate, t: Tensor) -> Tensor:
        edges, values = vars(self)["_edges"], vars(self)[table]
        piece = (
            torch.searchsorted(edges, t.detach().double().contiguous(), right=True).clamp(
                1, PIECES
            )
            - 1
        )
        return (values[piece] + _quadrature(rate, edges[piece], t.double())).to(t)


def described(process: Process, *functions: str) -> str:
    r"""Returns a process in words that are the same in every run, with the names of its functions."""

    words = []
    for name in functions:
        function = getattr(process, name)
        known = getattr(function, "__qualname__", type(function).__qualname__)
        words.append(f"{name}={known.split('<locals>.')[-1]}")
    span = f"t in [{process.t_min:.3g}, {process.t_max:.3g}]"
    return f"{type(process).__name__}({', '.join(words)}, {span})"


def _quadrature(rate: Rate, low: Tensor, high: Tensor) -> Tensor:
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(POINTS))
    half = (high - low)[..., None] / 2
    times = low[..., None] + half * (nodes + 1)
    values = rate(times.reshape(-1)).expand(times.numel()).reshape(times.shape)
    return (values * weights * half).sum(-1)


@dataclass(frozen=True)
class NonlinearProcess(Process):
    r"""Creates the process :math:`dx = f(x, t) \, dt + g(t) \, dw` of any drift.

    It has no scales: what needs them (clean data, noise, log-SNR, semi-linear solvers) is refused.
    Its models say `predicts="score"`.

    Arguments:
        f: The drift :math:`f(x, t)`, from shapes (B, *) and () or (B, 1, ...) to (B, *).
        g: The diffusion :math:`g(t)`.
        std: The standard deviation of the prior at `t_max`.
        t_min: The first time.
        t_max: The last time.
    """

    f: Callable[[Tensor, Tensor], Tensor]
    g: Rate
    std: float = 1.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __repr__(self) -> str:
        return described(self, "f", "g")

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(
            "a NonlinearProcess has no alpha and sigma, so clean data, noise and log-SNR are not "
            "defined; use predicts='score', an ODE or SDE solver with clock='t', grid='t', and "
            "denoise=False."
        )

    def time(self, log_snr: Tensor) -> Tensor:
        return self.log_scales(log_snr)[0]

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return self.f(x, t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.g(t)

    def prior_std(self) -> float:
        return self.std

    def start_of(self, use: str) -> float:
        return self.t_min

    def describe(self, t: float) -> str:
        return f"t={t:.4g}"
