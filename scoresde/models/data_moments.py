r"""Mean and covariance of data, which moment-matched solvers use."""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array, as_whole

from ..doors.data import as_data, as_floats
from .curves import Curves

ORTHONORMAL = 1e-3  # tolerance of the axes' inner products: files hold float32
NEEDS = {  # what solvers of a form need to know, and how to set it
    "moments": ("the mean and covariance of the data", "ss.moments(data)"),
    "measured": ("statistics of the model by noise level", "ss.statistics(model, data)"),
}
Kind = Literal["full", "diagonal", "low_rank"]
CONSTANT = 1e-5  # of the root mean square: directions that vary less count as constant


@checked
@dataclass(frozen=True)
class Moments:
    r"""Creates the mean and covariance of data, in coordinates that make the covariance diagonal.

    Arguments:
        mean: The mean, with the shape of one sample.
        basis: Orthonormal axes as columns, with shape (d, k), or `None` for the coordinate axes.
        variances: The variances along the axes, with shape (k,).
        rest: The variance in every direction that no axis covers, if there are such directions.
        curves: Statistics of a model along the same coordinates (:func:`scoresde.statistics`), if they are known.

    Raises:
        ValueError: If the shapes do not match, a number is not finite, a variance is negative or the basis is
            not orthonormal.

    Examples:
        >>> known = ss.Moments(torch.zeros(2), None, torch.tensor([1.0, 4.0]))
        >>> known.variances
        tensor([1., 4.])
    """

    mean: Tensor
    basis: Tensor | None
    variances: Tensor
    rest: float | None = None
    curves: Curves | None = None

    def __post_init__(self) -> None:
        for name, least in (("mean", 1), ("variances", 1), ("basis", 2)):
            value = getattr(self, name)
            if name != "basis" or value is not None:
                object.__setattr__(self, name, as_floats(name, value, least=least))
        d = self.mean.numel()
        k = d if self.basis is None else self.basis.shape[-1]
        if self.variances.shape != (k,):
            raise ValueError(
                f"variances must have shape ({k},), not {tuple(self.variances.shape)}."
            )
        if self.basis is not None and self.basis.shape != (d, k):
            raise ValueError(f"basis must have shape ({d}, {k}), not {tuple(self.basis.shape)}.")
        if (k < d) != (self.rest is not None):
            raise ValueError(
                f"rest= must be passed if the basis has fewer than {d} axes, and left out otherwise."
            )
        if bool((self.variances < 0).any()) or (self.rest or 0) < 0:
            raise ValueError("variances must not be negative.")
        if self.basis is not None:
            axes = self.basis.detach().double()
            off = (axes.T @ axes - torch.eye(k, dtype=axes.dtype, device=axes.device)).abs().max()
            if not off <= ORTHONORMAL:
                raise ValueError(
                    "the basis must be orthonormal, but inner products of its columns are off from 0 and 1 by "
                    f"{off:.2g}."
                )
        c = len(self.variances) + (0 if self.rest is None else d)
        if self.curves is not None and self.curves.rates.shape[-1] != c:
            raise ValueError(
                f"curves must be of {c} coordinates, but are of {self.curves.rates.shape[-1]}."
            )

    def __repr__(self) -> str:
        axes = "its own axes" if self.basis is None else f"{self.basis.shape[1]} axes"
        rest = "" if self.rest is None else f", {self.rest:.3g} in all other directions"
        low, high = float(self.variances.min()), float(self.variances.max())
        measured = "" if self.curves is None else f", {self.curves}"
        return (
            f"Moments(of samples {tuple(self.mean.shape)}, {axes}, variances from {low:.3g} to "
            f"{high:.3g}{rest}{measured})"
        )

    @property
    def coordinates(self) -> Tensor:
        r"""The variance of each coordinate, with shape (c,), in float64."""

        variances = self.variances.double().cpu()
        if self.rest is None:
            return variances
        rest = torch.full((self.mean.numel(),), self.rest, dtype=torch.float64)
        return torch.cat([rest, variances])

    @property
    def scale(self) -> float:
        r"""The root mean square of the data."""

        d, k = self.mean.numel(), len(self.variances)
        total = self.mean.double().square().sum() + self.variances.double().sum().to(
            self.mean.device
        )
        return math.sqrt((float(total) + (d - k) * (self.rest or 0.0)) / d)

    @property
    def finest(self) -> float | None:
        r"""The smallest standard deviation in any direction in which the data varies."""

        stds = self.coordinates.sqrt()
        stds = stds[stds > CONSTANT * self.scale]
        return stds.min().item() if len(stds) else None

    @property
    def widest(self) -> float:
        r"""The largest standard deviation in any direction."""

        return math.sqrt(self.coordinates.max().item())

    @property
    def counts(self) -> Tensor:
        r"""The number of directions per coordinate: the d - k directions that no axis covers share theirs."""

        d, counts = self.mean.numel(), torch.ones_like(self.coordinates)
        if self.rest is not None:
            counts[:d] = 1 - (len(counts) - d) / d
        return counts

    def like(self, x: Tensor) -> "Moments":
        r"""Returns the same moments with the dtype and on the device of a state."""

        moved = copy.copy(self)  # whose numbers were checked before
        for name in ("mean", "basis", "variances"):
            value = getattr(self, name)
            object.__setattr__(moved, name, None if value is None else value.to(x))
        return moved

    def split(self, x: Tensor) -> Tensor:
        r"""Returns the coordinates of differences from the mean, with shape (B, c).

        With fewer axes than dimensions, the part that the axes do not cover comes first, then the axes.
        """

        flat = x.flatten(1)
        if self.basis is None:
            return flat
        along = flat @ self.basis
        return along if self.rest is None else torch.cat([flat - along @ self.basis.T, along], 1)

    def join(self, z: Tensor) -> Tensor:
        r"""Returns the differences from the mean with the given coordinates."""

        flat = z
        if self.basis is not None:
            k = self.basis.shape[1]
            flat = z[:, z.shape[1] - k :] @ self.basis.T
            flat = flat if self.rest is None else flat + z[:, :-k]
        return flat.reshape(-1, *self.mean.shape)


@checked
def moments(
    data: Array,
    kind: Kind = "full",
    *,
    basis: Array | None = None,
    rank: int | None = None,
) -> Moments:
    r"""Returns the mean and covariance of data, for solvers such as "moment_2".

    Arguments:
        data: The data, with shape (n, *).
        kind: "full" uses the principal axes of the data; "diagonal" the variances along given axes, or along the
            coordinate axes; "low_rank" the first principal axes, and one variance for all other directions.
        basis: The axes for "diagonal", as orthonormal columns with shape (d, d), such as those of a cosine
            transform.
        rank: The number of axes for "low_rank".

    Raises:
        ValueError: If the data or options are invalid.

    Examples:
        >>> known = ss.moments(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), "diagonal")
        >>> known.mean.tolist(), known.variances.tolist()
        ([0.0, 0.0], [1.0, 0.0])
    """

    data, rank = as_data("data", data), as_whole("rank", rank)
    if len(data) < 2:
        raise ValueError("data must have shape (n, *) with at least 2 samples, but has one.")
    if (kind == "low_rank") != (rank is not None):
        raise ValueError("rank= must be passed with kind='low_rank', and with no other kind.")
    if basis is not None and kind != "diagonal":
        raise ValueError(f"basis= has no effect with kind={kind!r}; use 'diagonal'.")
    flat = data.detach().flatten(1).double()
    mean, centred = flat.mean(0), flat - flat.mean(0)
    shaped = mean.reshape(data.shape[1:])
    if kind == "diagonal":
        axes = None if basis is None else _axes(basis, len(mean)).to(centred)
        along = centred if axes is None else centred @ axes
        return Moments(shaped, axes, along.square().mean(0))
    if kind not in ("full", "low_rank"):
        raise ValueError(f"kind must be 'full', 'diagonal' or 'low_rank', but is {kind!r}.")
    known = from_covariance(shaped, centred.T @ centred / len(centred))
    if rank is None:
        return known
    if not 1 <= rank < len(mean):
        raise ValueError(f"rank must be in [1, {len(mean) - 1}], but is {rank}.")
    assert known.basis is not None
    rest = known.variances[:-rank].mean().item()
    return Moments(shaped, known.basis[:, -rank:], known.variances[-rank:], rest)


def _axes(basis: object, d: int) -> Tensor:
    r"""The axes as columns, in float64."""

    axes = as_floats("basis", basis, least=2)
    if axes.shape != (d, d):
        raise ValueError(f"basis must have shape ({d}, {d}), not {tuple(axes.shape)}.")
    return axes.double()


def from_covariance(mean: Tensor, covariance: Tensor) -> Moments:
    r"""Returns the moments with a mean, with shape (*), and a covariance, with shape (d, d)."""

    variances, axes = torch.linalg.eigh(covariance)
    return Moments(mean, axes, variances.clamp(min=0))


def suits(known: object, form: str) -> bool:
    r"""Whether moments are all that a solver of a form needs to know of a model; other forms need none."""

    if form == "measured" and isinstance(known, Moments):
        return known.curves is not None
    return form not in NEEDS or known is not None
