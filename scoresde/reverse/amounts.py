r"""The amount of noise :math:`\eta`: a number, one number per sample, or a function of the noise level.

With any non-negative :math:`\eta`, also one that changes on the way, the marginals of a process stay the same.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor

from solvers.doors.values import Array, is_number
from solvers.methods.weights import FULL

from ..doors.data import as_floats
from ..models.by_level import OfLevel, at_levels
from ..models.checks import check_number

MOST = 1e15
SAME = 1e-6  # relative difference below which a noise level is one of the grid
Eta: TypeAlias = float | Array | OfLevel


@dataclass(frozen=True)
class ByRow:
    r"""One amount of noise for each sample. It is true if any of them is not 0."""

    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return any(self.values)

    def rows(self, index: Tensor) -> "ByRow":
        r"""Returns the amounts of some rows."""

        return ByRow(tuple(self.values[i] for i in index.tolist()))

    def like(self, t: Tensor) -> Tensor:
        r"""Returns the amounts for times with shape (n, B, \*), or the amounts alone, with shape (B,)."""

        return torch.tensor(self.values, dtype=torch.float64).reshape(-1, *(1,) * (t.ndim - 2))


@dataclass(frozen=True)
class ByStep:
    r"""One amount of noise for each step of a grid. It is true if any of them is not 0.

    As a function of the noise level it is constant over each step, and where two steps meet it is that of the
    later one, towards data.

    Arguments:
        levels: The noise levels :math:`\sigma / \alpha` of the grid, from high to low, n + 1 of them.
        values: The amounts, n of them.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return any(self.values)

    def __call__(self, levels: Tensor) -> Tensor:
        r"""Returns the amounts at noise levels."""

        starts = torch.tensor(self.levels[1:-1], dtype=torch.float64) * (1 + SAME)
        values = torch.tensor(self.values, dtype=torch.float64)
        return values[(levels.double().cpu()[..., None] <= starts).sum(-1)]


Amount = float | ByRow | OfLevel


def as_amount(eta: object) -> Amount:
    r"""Returns an amount of noise in the form that runs use.

    Raises:
        ValueError, TypeError: If it is negative, not finite, or neither numbers nor a function.
    """

    if isinstance(eta, ByRow) or callable(eta):
        return eta
    if is_number(eta):
        return _checked("eta", eta)
    if eta is None or isinstance(eta, str | bool):
        raise TypeError(f"eta must be a number, or a function of the noise level, but is {eta!r}.")
    rows = as_floats("eta", eta, least=1, dtype=torch.float64).detach().cpu()
    if rows.ndim > 1:
        raise ValueError(
            f"eta must be a number, one number per sample with shape (B,), or a function of the noise level, "
            f"but has shape {tuple(rows.shape)}."
        )
    return ByRow(tuple(_checked("each of eta", value) for value in rows.tolist()))


def _checked(name: str, value: object) -> float:
    number = float(cast(float, check_number(name, value, 0, MOST)))
    if math.isnan(number):
        raise ValueError(f"{name} must be a finite number >= 0, but is nan.")
    return number


def amount_at(eta: Amount, log_snr: Tensor) -> float | Tensor:
    r"""Returns the amount of noise at log-SNRs with shape (), (n,) or (n, B)."""

    if isinstance(eta, ByRow):
        return eta.like(log_snr)
    return at_levels("eta", eta, torch.exp(-log_snr), least=0) if callable(eta) else eta


def amount_over(eta: Amount, s: Tensor, t: Tensor) -> float | Tensor:
    r"""Returns the root mean square of the amount of noise over steps in log-SNR from s to t.

    Arguments:
        eta: The amount.
        s: The log-SNRs at which the steps start; if rows differ, they are on the second axis.
        t: Those at which they end.
    """

    if isinstance(eta, ByStep):
        return eta(torch.exp(-(s + t) / 2))
    if not callable(eta):
        return amount_at(eta, s)
    points, gauss = FULL
    values = amount_at(eta, s[..., None] + (t - s)[..., None] * points)
    return (values**2 * gauss).sum(-1).sqrt()


def root_of(eta: Amount) -> Amount:
    r"""Returns the square root of an amount."""

    if isinstance(eta, ByRow):
        return ByRow(tuple(map(math.sqrt, eta.values)))
    if callable(eta):
        return lambda levels: at_levels("eta", eta, levels, least=0).sqrt()
    return math.sqrt(eta)


def told_amount(eta: Amount | None) -> float | list[float] | str | None:
    r"""Returns an amount as plain data: numbers, or the name of a function."""

    if isinstance(eta, ByRow | ByStep):
        return list(eta.values)
    return getattr(eta, "__qualname__", type(eta).__name__) if callable(eta) else eta
