r"""Statistics of latents against the prior: normal noise, independent in all entries.

In units of the prior's standard deviation, each latent is compared with standard normal numbers, which is the
law of the latents of a correct model for data from its distribution.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.values import Array

from ..doors.tables import html_table
from ..models.checks import check_data
from ..models.conditions import verb
from ..models.masked import refuse_mask
from ..models.score_model import ScoreModel

FEW = 30  # entries, below which kurtosis and the like are uninformative
MANY, RARE = 4.0, 1e-4  # standard errors, and a p-value, that are unlikely for noise
MOST = 2048  # entries up to which all correlations are computed
SCORES, Z = ("radius", "neighbours", "pairs"), " (z-score)"


@dataclass(frozen=True)
class BatchStatistics:
    r"""Statistics over all entries of all latents together, in units of the prior.

    They are meant for few dimensions, where a single latent has too few entries to be informative.

    Arguments:
        samples: The number B of latents.
        entries: The number d of entries per latent.
        mean: The mean of all B d entries, whose standard error is :math:`1 / \sqrt{B d}`.
        std: Their standard deviation, whose standard error is :math:`1 / \sqrt{2 B d}`.
        kurtosis: Their excess kurtosis, whose standard error is about :math:`\sqrt{24 / (B d)}`.
        normality: The p-value of the Kolmogorov-Smirnov test of all entries.
        means: The mean of each entry over the batch, with the shape of one latent.
        stds: The standard deviation of each entry over the batch, with the same shape; NaN for a single latent.
        correlation: The largest absolute correlation coefficient of two entries over the batch; NaN for fewer
            than three latents, for a single entry, or for more than 2048 entries.
        correlation_z: The same in units of its standard error, :math:`1 / \sqrt B`. For K pairs, expect less
            than :math:`\sqrt{2 \log K}`.
    """

    samples: int
    entries: int
    mean: float
    std: float
    kurtosis: float
    normality: float
    means: Tensor
    stds: Tensor
    correlation: float
    correlation_z: float

    @property
    def scores(self) -> dict[str, float]:
        r"""The deviations of mean, standard deviation, kurtosis and correlation from noise, in standard errors.

        The largest of many correlations is compared with its expected maximum.
        """

        n, pairs = self.samples * self.entries, self.entries * (self.entries - 1) / 2
        found = {
            "mean": abs(self.mean) * math.sqrt(n),
            "std": abs(self.std - 1) * math.sqrt(2 * n),
            "kurtosis": abs(self.kurtosis) * math.sqrt(n / 24) if n >= FEW else 0.0,
        }
        if self.correlation_z == self.correlation_z:
            found["correlation"] = max(
                self.correlation_z - math.sqrt(2 * math.log(max(pairs, 1))), 0
            )
        return found

    @property
    def verdict(self) -> str:
        r"""Whether the latents look like the prior, in words."""

        worst, score = max(self.scores.items(), key=lambda entry: entry[1])
        if score > MANY:
            return f"unlike the prior: {worst} is off by {score:.3g} standard errors"
        if self.normality < RARE:
            return f"unlike the prior: of its law with a p-value of {self.normality:.2g}"
        return "like the prior"

    def __repr__(self) -> str:
        n = self.samples * self.entries
        return (
            f"{self.verdict}; all {n} entries: mean {self.mean:.3g} (0 ± {n**-0.5:.2g}), std {self.std:.3g} "
            f"(1 ± {(2 * n) ** -0.5:.2g}), kurtosis {self.kurtosis:.3g} (0 ± {(24 / n) ** 0.5:.2g}), p-value of "
            f"normality {self.normality:.2g}, largest correlation of entries {self.correlation:.2g}"
        )


@dataclass(frozen=True)
class LatentStatistics:
    r"""Statistics of each latent over its entries, in units of the prior, with shape (B,), in float64.

    With few entries, these are uninformative; `batch` has the statistics of all latents together. A z-score has
    the mean 0 and the standard deviation 1 for noise, in any dimension.

    Arguments:
        mean: The mean, whose standard error is :math:`1 / \sqrt d`.
        std: The standard deviation, whose standard error is :math:`1 / \sqrt{2 d}`.
        kurtosis: The excess kurtosis, whose standard error is about :math:`\sqrt{24 / d}`.
        normality: The p-value of the Kolmogorov-Smirnov test against the standard normal law.
        radius: The z-score of the norm.
        neighbours: The z-score of `neighbour_correlation`, which is multiplied by the root of the number of
            pairs.
        pairs: The z-score of `pair_correlation`, which is multiplied by :math:`\sqrt d`. For B latents, expect
            less than :math:`\sqrt{2 \log B}`: 2.6 for 64, 3.1 for 512.
        neighbour_correlation: The correlation coefficient of adjacent entries along the last axes, about
            the mean 0 of noise.
        pair_correlation: The largest absolute correlation coefficient with another latent, also about the mean
            0; NaN for a single latent.
        batch: The statistics of all latents together.

    Examples:
        >>> z = ss.encode(model, model.data(64), steps=8)
        >>> statistics = ss.latent_statistics(model, z)
        >>> statistics.radius.shape
        torch.Size([64])
    """

    mean: Tensor
    std: Tensor
    kurtosis: Tensor
    normality: Tensor
    radius: Tensor
    neighbours: Tensor
    pairs: Tensor
    neighbour_correlation: Tensor
    pair_correlation: Tensor
    batch: BatchStatistics

    @property
    def averages(self) -> dict[str, float]:
        r"""The mean of each statistic over the latents, by its name in words."""

        return {
            f"{name}{Z if name in SCORES else ''}": value.nanmean().item()
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        b = self.batch
        return (
            f"LatentStatistics({len(self)} samples of {b.entries} entries: {b.verdict}; all entries: mean "
            f"{b.mean:.3g}, std {b.std:.3g}, kurtosis {b.kurtosis:.3g}, p-value of normality {b.normality:.2g}; "
            "print(s) for all)"
        )

    def __str__(self) -> str:
        d = self.batch.entries
        alone = f"{d} entries are too few to tell more by sample"
        if d >= FEW:
            words = ", ".join(f"{name} {value:.3g}" for name, value in self.averages.items())
            alone = f"each sample by its {d} entries, on average: {words}"
        return f"LatentStatistics({len(self.mean)} samples, {self.batch}; {alone})"

    def _repr_html_(self) -> str:
        rows = [{"statistic": n, "mean over samples": v} for n, v in self.averages.items()]
        return html_table(rows, repr(self), [repr(self.batch)])


def at_prior(model: ScoreModel, z: Solution) -> bool:
    r"""Whether latents are those of the last time of the process."""

    return math.isclose(float(z.times[-1].max()), model.process.t_max, rel_tol=1e-6)


@verb(latents=("z",))
def latent_statistics(model: ScoreModel, z: Solution | Array) -> LatentStatistics:
    r"""Returns statistics that compare latents with noise.

    Arguments:
        model: The score model, whose prior is that of the latents.
        z: Latents at the last time of the process, with shape (B, *), or the solution of
            :func:`scoresde.encode`.

    Raises:
        ValueError: If the latents belong to another time.

    Examples:
        >>> z = ss.encode(model, model.data(64), steps=8)
        >>> bool(ss.latent_statistics(model, z).mean.abs().max() < 5 / 2**0.5)
        True
    """

    process = model.process
    refuse_mask(model, "latent_statistics")
    if isinstance(z, Solution):
        if not at_prior(model, z):
            last = float(z.times[-1].max())
            raise ValueError(
                f"latents at t={last:.4g} still hold data, so they are not normal: encode up to "
                f"t_max={process.t_max:.4g}."
            )
        z = z.x
    z = check_data(model, z, "z")
    u = process.standardised(z.detach().double().cpu())
    flat, d = u.flatten(1), u[0].numel()
    mean, std = flat.mean(1), flat.std(1, correction=0)
    square = flat.square().sum(1) / d
    radius = (square ** (1 / 3) - (1 - 2 / (9 * d))) / math.sqrt(
        2 / (9 * d)
    )  # Wilson and Hilferty
    near, near_z = _neighbours(u)
    others = _pairs(flat)
    return LatentStatistics(
        mean,
        std,
        _kurtosis(flat),
        _normality(flat),
        radius,
        near_z,
        others * math.sqrt(d),
        near,
        others,
        _batch(u),
    )


def _batch(u: Tensor) -> BatchStatistics:
    r"""The statistics of all entries together, and of each entry over the batch."""

    every, flat = u.reshape(1, -1), u.flatten(1)
    several = len(u) > 1
    stds = flat.std(0) if several else torch.full_like(flat[0], torch.nan)
    largest = _correlation(flat)
    return BatchStatistics(
        samples=len(u),
        entries=flat.shape[1],
        mean=every.mean().item(),
        std=every.std(correction=0).item(),
        kurtosis=_kurtosis(every).item(),
        normality=_normality(every).item(),
        means=u.mean(0),
        stds=stds.reshape(u.shape[1:]),
        correlation=largest,
        correlation_z=largest * math.sqrt(len(u)),
    )


def _correlation(flat: Tensor) -> float:
    r"""The largest absolute correlation of two columns."""

    if len(flat) < 3 or not 1 < flat.shape[1] <= MOST:
        return math.nan
    found = flat.T.corrcoef().nan_to_num(0).abs()
    return found.fill_diagonal_(0).max().item()


def _kurtosis(flat: Tensor) -> Tensor:
    centred = flat - flat.mean(1, keepdim=True)
    return centred.pow(4).mean(1) / centred.square().mean(1).square() - 3


def _normality(flat: Tensor) -> Tensor:
    from scipy import stats

    known = np.sort(stats.norm.cdf(flat.numpy()), axis=1)
    n = known.shape[1]
    place = np.arange(n)
    distance = np.maximum((place + 1) / n - known, known - place / n).max(1)
    return torch.from_numpy(np.asarray(stats.kstwo.sf(distance, n), dtype=np.float64))


def _neighbours(u: Tensor) -> tuple[Tensor, Tensor]:
    r"""The correlation of adjacent entries, and its z-score; 0 if there are none, or all are 0."""

    sums, firsts, seconds, count = (torch.zeros(len(u), dtype=torch.float64) for _ in range(4))
    for axis in range(max(1, u.ndim - 2), u.ndim):
        n = u.shape[axis] - 1
        first, second = u.narrow(axis, 0, n).flatten(1), u.narrow(axis, 1, n).flatten(1)
        sums += (first * second).sum(1)
        firsts, seconds = firsts + first.square().sum(1), seconds + second.square().sum(1)
        count += first.shape[1]
    size = (firsts * seconds).sqrt()
    correlation = torch.where(size > 0, sums / size, torch.zeros_like(sums))
    return correlation, correlation * count.sqrt()


def _pairs(flat: Tensor) -> Tensor:
    if len(flat) < 2:
        return torch.full((len(flat),), torch.nan, dtype=torch.float64)
    unit = flat / flat.norm(dim=1, keepdim=True)
    return (unit @ unit.T).abs().fill_diagonal_(0).amax(1)
