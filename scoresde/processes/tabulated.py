r"""Noise schedules given as tables, as for discrete-time models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor

from .schedules import Schedule

LEAST_SIGNAL = 2.0**-48  # the square of alpha that stands for 0, where no signal is left


@checked
@dataclass(frozen=True, repr=False)
class Tabulated(Schedule, constant=True):
    r"""Creates the schedule with a tabulated log-SNR at :math:`t = 0, 1, \dots, n - 1`, linear in between.

    Time is the index into the table, which is the time label of discrete-time networks; at whole times, the
    schedule is exact.

    Arguments:
        log_snr: The n values of :math:`\lambda = \log (\alpha / \sigma)`, in descending order.

    Examples:
        >>> betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        >>> process = ss.VP(ss.Tabulated.from_betas(betas))
        >>> alpha, _ = process.scales(torch.tensor(500.0, dtype=torch.float64))
        >>> bool(torch.isclose(alpha**2, (1 - betas)[:501].prod()))
        True
    """

    log_snr: Sequence[float]

    def __post_init__(self) -> None:
        table = _column("log_snr", self.log_snr)
        if not bool(table.isfinite().all()):
            raise ValueError(
                "log_snr must be finite, but has NaN or infinite values; leave out steps without any noise."
            )
        rising = table.diff() >= 0
        if bool(rising.any()):
            i = int(rising.nonzero()[0])
            raise ValueError(
                f"log_snr must decrease, but goes from {table[i]:.6g} at t={i} to {table[i + 1]:.6g} at "
                f"t={i + 1}; order the table from data to noise."
            )
        object.__setattr__(self, "log_snr", tuple(table.tolist()))

    @classmethod
    @checked
    def from_betas(cls, betas: Sequence[float] | Tensor) -> "Tabulated":
        r"""Returns the schedule with :math:`\bar \alpha_t = \prod_{s \leq t} (1 - \beta_s)`, as in DDPM.

        Arguments:
            betas: The variances :math:`\beta` of the noise that each step adds, with shape (n,).
        """

        steps = _fractions("betas", betas)
        return cls.from_alphas_cumprod((1 - steps).cumprod(0))

    @classmethod
    @checked
    def from_alphas_cumprod(cls, alphas_cumprod: Sequence[float] | Tensor) -> "Tabulated":
        r"""Returns the schedule with :math:`\bar \alpha = \alpha^2`, where :math:`\alpha^2 + \sigma^2 = 1`.

        A last value of 0 (a zero terminal SNR) becomes :math:`2^{-48}`, which is below the precision of float32.

        Arguments:
            alphas_cumprod: The values :math:`\bar \alpha`, in descending order, with shape (n,).
        """

        signal = _fractions("alphas_cumprod", alphas_cumprod).clone()
        signal[-1] = signal[-1].clamp(min=LEAST_SIGNAL)
        return cls((signal.log() - torch.log1p(-signal)) / 2)  # type: ignore[arg-type]

    @classmethod
    @checked
    def from_sigmas(cls, sigmas: Sequence[float] | Tensor) -> "Tabulated":
        r"""Returns the schedule with noise levels :math:`\sigma / \alpha`, as in k-diffusion.

        Arguments:
            sigmas: The noise levels, in ascending order, with shape (n,).
        """

        levels = _column("sigmas", sigmas)
        if not bool(
            ((levels > 0) & levels.isfinite() & (levels.diff(prepend=levels[:1] - 1) > 0)).all()
        ):
            raise ValueError(
                f"sigmas must be positive and finite and increase, but go from {levels[0]:.6g} to "
                f"{levels[-1]:.6g} otherwise; order them from data to noise, and leave out a 0."
            )
        return cls(-levels.log())  # type: ignore[arg-type]

    @cached_property
    def table(self) -> Tensor:
        r"""The values as a tensor in float64, with shape (n,)."""

        return torch.tensor(self.log_snr, dtype=torch.float64)

    @property
    def domain(self) -> tuple[float, float]:
        return 0.0, float(len(self.log_snr) - 1)

    @property
    def said(self) -> tuple[float | None, float | None]:
        return math.exp(-self.log_snr[0]), math.exp(-self.log_snr[-1])

    def __call__(self, t: Tensor) -> Tensor:
        table = self.table.to(t)
        index = t.detach().floor().long().clamp(0, len(table) - 2)
        return torch.lerp(table[index], table[index + 1], t - index)

    def inverse(self, log_snr: Tensor) -> Tensor:
        table = self.table.to(log_snr)
        index = torch.searchsorted(-table, -log_snr.detach().contiguous(), right=True) - 1
        index = index.clamp(0, len(table) - 2)
        above, below = table[index], table[index + 1]
        return index + (above - log_snr) / (above - below)

    def __repr__(self) -> str:
        first, last = (math.exp(-self.log_snr[i]) for i in (0, -1))
        return f"Tabulated({len(self.log_snr)} noise levels from {first:.3g} to {last:.3g})"


def _column(name: str, values: Sequence[float] | Tensor) -> Tensor:
    r"""A list of numbers, two at least, in float64."""

    found = as_tensor(name, values).detach().double().cpu()
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(
            f"{name} must be a list of at least two numbers, but has shape {tuple(found.shape)}."
        )
    return found


def _fractions(name: str, values: Sequence[float] | Tensor) -> Tensor:
    r"""The same with numbers from 0 to 1."""

    found = _column(name, values)
    inside = (found >= 0) & (found <= 1)
    if not bool(inside.all()):
        raise ValueError(f"{name} must be numbers from 0 to 1, but has {found[~inside][0]:.6g}.")
    return found
