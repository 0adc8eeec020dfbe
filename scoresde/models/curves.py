r"""Statistics of a model by noise level, one number per coordinate and level, and what lies between the levels.

The remainder f is :math:`s^2` times a score, and linear terms, near data, and third moments over :math:`s^2` amid
noise. So beyond the levels, its size, and what rates exceed those of Gaussian data by, are taken to fall like
:math:`e^{-2 |\lambda|}`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..doors.data import as_floats

FALL = 2.0  # the rate at which statistics fall beyond the levels
NAMES = ("levels", "rates", "sizes")  # of its entries, also in files and configs
LEAST = 1e-6  # of the largest remainder along an axis: smaller ones count as this


@checked
@dataclass(frozen=True)
class Curves:
    r"""Creates the statistics of a model by noise level, along the coordinates of its moments.

    Arguments:
        levels: The noise levels :math:`\sigma / \alpha`, in descending order, with shape (n,), n >= 2.
        rates: The rates :math:`l = 1 - \mathbb{E}[\partial D_i / \partial X_i]`, with shape (n, c).
        sizes: The root mean squares of the remainders :math:`D - m - (1 - l) z`, with shape (n, c).

    Raises:
        ValueError: If the shapes do not match, a number is not finite, or levels or sizes are out of range.

    Examples:
        >>> curves = ss.Curves(torch.tensor([10.0, 0.1]), torch.ones(2, 1), torch.ones(2, 1))
        >>> curves.levels.tolist()[0]
        10.0
    """

    levels: Tensor
    rates: Tensor
    sizes: Tensor

    def __post_init__(self) -> None:
        for name, least in (("levels", 1), ("rates", 2), ("sizes", 2)):
            value = as_floats(name, getattr(self, name), least=least)
            object.__setattr__(self, name, value.detach().double().cpu())
        n = len(self.levels)
        if self.levels.ndim != 1 or n < 2 or not bool((self.levels.diff() < 0).all()):
            raise ValueError("levels must fall, with shape (n,) and at least two of them.")
        if not bool(self.levels[-1] > 0):
            raise ValueError(f"levels must be positive, but end at {self.levels[-1]:.4g}.")
        for name in ("rates", "sizes"):
            shape = tuple(getattr(self, name).shape)
            if shape != (n, self.rates.shape[-1]):
                raise ValueError(
                    f"{name} must have shape ({n}, {self.rates.shape[-1]}), not {shape}."
                )
        if bool((self.sizes < 0).any()):
            raise ValueError("sizes must not be negative.")

    def __repr__(self) -> str:
        high, low = self.levels[0], self.levels[-1]
        return f"Curves(at {len(self.levels)} noise levels from {high:.4g} to {low:.4g})"

    def excess(self, variances: Tensor) -> "Falling":
        r"""Returns the rates less those of Gaussian data with the given variances, by log-SNR."""

        squares = self.levels.square()[:, None]
        return Falling(-self.levels.log(), self.rates - squares / (variances + squares))

    def log_size(self, t: Tensor) -> Tensor:
        r"""Returns the logarithms of the sizes at log-SNRs t, with shape (\*, c)."""

        return self._log_sizes(t) - FALL * self._log_sizes.beyond(t).abs()

    @cached_property
    def _log_sizes(self) -> "Spline":
        largest = self.sizes.amax(0)
        least = torch.where(largest > 0, LEAST * largest, 1.0)
        return Spline(-self.levels.log(), self.sizes.maximum(least).log())


@dataclass(frozen=True)
class Spline:
    r"""Creates the cubic splines through given values, with slopes from neighbours, and constant beyond them.

    Arguments:
        places: The places, in ascending order, with shape (n,).
        values: The values there, with shape (n, c).
    """

    places: Tensor
    values: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        r"""Returns the values at t, with shape (\*, c)."""

        w, a, b, p, q = self._piece(t)
        return torch.lerp(a, b, w * w * (3 - 2 * w)) + w * (1 - w) * ((1 - w) * p - w * q)

    def integral(self, t: Tensor) -> Tensor:
        r"""Returns the integrals from the first place to t, with shape (\*, c)."""

        w, a, b, p, q = self._piece(t)
        later = w**3 * (1 - w / 2)  # of b, and the rest of w of a
        slopes = w**2 * ((1 / 2 - 2 * w / 3 + w**2 / 4) * p + w * (w / 4 - 1 / 3) * q)
        i = self._number(t)
        inside = self._gaps[i][..., None] * ((w - later) * a + later * b + slopes)
        return self._sums[i] + inside + self.beyond(t) * torch.where(w > 0, b, a)

    def beyond(self, t: Tensor) -> Tensor:
        r"""Returns how far t lies after the last place, or before the first one, with shape (\*, 1)."""

        return (t - t.clamp(self.places[0], self.places[-1]))[..., None]

    def _piece(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        r"""The place in a piece, its values, and the slopes there times its length."""

        i = self._number(t)
        gap = self._gaps[i]
        w = ((t - self.places[i]) / gap).clamp(0, 1)[..., None]
        slopes, gap = self._slopes, gap[..., None]
        return w, self.values[i], self.values[i + 1], gap * slopes[i], gap * slopes[i + 1]

    def _number(self, t: Tensor) -> Tensor:
        found = torch.searchsorted(self.places, t.detach().contiguous(), right=True) - 1
        return found.clamp(0, len(self.places) - 2)

    @cached_property
    def _gaps(self) -> Tensor:
        return self.places.diff()

    @cached_property
    def _slopes(self) -> Tensor:
        r"""The slopes of the parabolas through neighbours; chords at the ends."""

        gaps = self._gaps[:, None]
        chords = self.values.diff(dim=0) / gaps
        share = gaps[:-1] / (gaps[:-1] + gaps[1:])
        return torch.cat([chords[:1], torch.lerp(chords[:-1], chords[1:], share), chords[-1:]])

    @cached_property
    def _sums(self) -> Tensor:
        r"""The integrals over all pieces before each."""

        gaps, slopes = self._gaps[:, None], self._slopes
        means = (self.values[:-1] + self.values[1:]) / 2
        bends = gaps * (slopes[:-1] - slopes[1:]) / 12
        return torch.cat([0 * self.values[:1], (gaps * (means + bends)).cumsum(0)])


@dataclass(frozen=True)
class Falling(Spline):
    r"""Creates the same splines, but with values that fall to 0 beyond the places, at the rate FALL."""

    def __call__(self, t: Tensor) -> Tensor:
        return super().__call__(t) * torch.exp(-FALL * self.beyond(t).abs())

    def integral(self, t: Tensor) -> Tensor:
        beyond = self.beyond(t)
        less = -beyond.sign() * torch.expm1(-FALL * beyond.abs()) / FALL - beyond
        return super().integral(t) + less * super().__call__(t)
