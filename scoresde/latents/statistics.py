r"""Whether latents look like the prior: noise that is normal, and independent in all entries.

In units of the prior's standard deviation, each latent is compared with standard normal numbers,
as the flow of a right model has them for data of its own kind.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers import Solution

from ..checks import check_data
from ..models import ScoreModel


@dataclass(frozen=True)
class LatentStatistics:
    r"""What is known of latents, in units of the prior, each with shape (B,), in float64.

    Arguments:
        mean: Their mean, of which the standard error is :math:`1 / \sqrt d`.
        std: Their standard deviation, of which it is :math:`1 / \sqrt{2 d}`.
        kurtosis: Their excess kurtosis, of which it is about :math:`\sqrt{24 / d}`.
        normality: The p-value of Kolmogorov's and Smirnov's test against the standard normal law.
        radius: By how many standard deviations the norm differs from that of normal numbers.
        neighbours: The same of the correlation between adjacent entries along the last axes.
        pairs: The same of the largest correlation with another latent; NaN for a single one. Of B
            latents it is to be expected below :math:`\sqrt{2 \log B}`: at 2.6 for 64, 3.1 for 512.
    """

    mean: Tensor
    std: Tensor
    kurtosis: Tensor
    normality: Tensor
    radius: Tensor
    neighbours: Tensor
    pairs: Tensor

    def __repr__(self) -> str:
        parts = [f"{name} {value.nanmean():.3g}" for name, value in vars(self).items()]
        return f"LatentStatistics({len(self.mean)} samples, on average: {', '.join(parts)})"


def latent_statistics(model: ScoreModel, z: Solution | Tensor) -> LatentStatistics:
    r"""Returns what tells latents from noise.

    Arguments:
        model: The score model, whose prior is that of the latents.
        z: Latents at the last time of the process, with shape (B, *), or the solution of
            :func:`scoresde.encode`.

    Raises:
        ValueError: If the latents are those of another time.
    """

    process = model.process
    if isinstance(z, Solution):
        last = float(z.times[-1].flatten()[0])
        if not math.isclose(last, process.t_max, rel_tol=1e-6):
            raise ValueError(
                f"latents at t={last:.4g} still hold data, so they are not normal: encode up to "
                f"t_max={process.t_max:.4g}."
            )
        z = z.x
    z = check_data(model, z, "z")
    u = z.detach().double().cpu() / process.prior_std()
    flat, d = u.flatten(1), u[0].numel()
    mean, std = flat.mean(1), flat.std(1, correction=0)
    centred = (flat - mean[:, None]) / std[:, None]
    square = flat.square().sum(1) / d
    radius = (square ** (1 / 3) - (1 - 2 / (9 * d))) / math.sqrt(
        2 / (9 * d)
    )  # Wilson and Hilferty
    return LatentStatistics(
        mean,
        std,
        centred.pow(4).mean(1) - 3,
        _normality(flat),
        radius,
        _neighbours(u),
        _pairs(flat),
    )


def _normality(flat: Tensor) -> Tensor:
    from scipy import stats

    law = [stats.kstest(row, "norm").pvalue for row in flat.numpy()]
    return torch.from_numpy(np.array(law, dtype=np.float64))


def _neighbours(u: Tensor) -> Tensor:
    sums, count = torch.zeros(len(u), dtype=torch.float64), 0
    for axis in range(max(1, u.ndim - 2), u.ndim):
        if u.shape[axis] > 1:
            n = u.shape[axis] - 1
            products = u.narrow(axis, 0, n) * u.narrow(axis, 1, n)
            sums, count = sums + products.flatten(1).sum(1), count + products[0].numel()
    return sums / math.sqrt(max(count, 1))


def _pairs(flat: Tensor) -> Tensor:
    if len(flat) < 2:
        return torch.full((len(flat),), torch.nan, dtype=torch.float64)
    unit = flat / flat.norm(dim=1, keepdim=True)
    angles = (unit @ unit.T).abs().fill_diagonal_(0)
    return angles.amax(1) * math.sqrt(flat.shape[1])
