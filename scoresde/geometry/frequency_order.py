r"""Which frequencies a denoised estimate has decided, by noise level: autoregression in frequency."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.noise.brownian import PROBES, keyed_normal

from ..models.checks import check_count, check_data, check_numbers
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..processes.process import Process
from ..runs.takes import Takes, split
from .power import Spectrum, spectrum

DECIDED = Takes("decided frequencies", "seed", "dtype", "device", "batch_size")
COUNT = 24  # noise levels of the default
BEYOND = 1.4  # of logarithms of levels, below and above the roots of the powers
EDGE = 1.001  # how far inside the domain levels stay
ROWS = 256  # images that are denoised at once


@dataclass(frozen=True)
class Decided:
    r"""The share of the data's power that estimates explain, for each ring of frequencies and noise level.

    Arguments:
        data: The power spectrum of the data about its mean, with power of shape (k,).
        levels: The noise levels, in increasing order, with shape (n,).
        shares: One minus the power of the error over that of the data, with shape (n, k).

    Examples:
        >>> flat = ss.GaussianOracle(torch.zeros(1, 8, 8), 0.5)
        >>> ss.spectra.decided(flat, flat.data(8), [0.1, 1.0])
        Decided(7 rings of frequencies at 2 noise levels)
    """

    data: Spectrum
    levels: Tensor
    shares: Tensor

    def __repr__(self) -> str:
        n, k = self.shares.shape
        return f"Decided({k} rings of frequencies at {n} noise levels)"

    @property
    def linear(self) -> Tensor:
        r"""The shares :math:`P / (P + s^2)` of the best linear denoiser of stationary data, with shape (n, k)."""

        power = self.data.power
        return power / (power + self.levels[:, None] ** 2)

    @property
    def halves(self) -> Tensor:
        r"""The noise level at which half of each ring is decided, or NaN outside the levels, with shape (k,).

        For normal data with the power P in a ring, it is :math:`\sqrt P`, where the noise has the same power.
        """

        logs, found = self.levels.log(), []
        for ring in self.shares.T:
            above = (ring >= 0.5).nonzero()[:, 0]
            i = int(above[-1]) if len(above) else -1
            if not 0 <= i < len(ring) - 1:
                found.append(math.nan)
                continue
            weight = float((ring[i] - 0.5) / (ring[i] - ring[i + 1]))
            found.append(math.exp(float(torch.lerp(logs[i], logs[i + 1], weight))))
        return torch.tensor(found, dtype=torch.float64)


@verb(data=("x",))
def decided(
    model: ScoreModel,
    x: Data,
    levels: Sequence[float] | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    **condition: Condition,
) -> Decided:
    r"""Returns which frequencies a model has decided at each noise level.

    In a ring of frequencies with the power P of the data, and the power E of the error of the denoised data, the
    share :math:`1 - E / P` is decided. On the way from noise to data, rings are decided one after the other, those
    with most power first: for natural images, whose power falls as a power law, from coarse to fine. Normal data
    that is stationary has the share :math:`P / (P + s^2)`.

    Arguments:
        model: The score model of images.
        x: Images, with shape (B, C, H, W), best some that it was not trained on.
        levels: The noise levels :math:`\sigma / \alpha`. By default, 24 around the roots of the powers.
        seed: The seed of the noise.
        dtype: The dtype of the states, float32 or float64. By default, that of the images.
        device: The device. By default, that of the images.
        batch_size: How many images are denoised at once.
        condition: The conditions of the model, each with leading size B or 1.

    Raises:
        ValueError: If there are fewer than two images, or the process has no noise levels.

    References:
        | Diffusion is Spectral Autoregression (Dieleman, 2024)
        | https://sander.ai/2024/09/02/spectral-autoregression.html

    Examples:
        >>> flat = ss.GaussianOracle(torch.zeros(1, 8, 8), 0.5)
        >>> found = ss.spectra.decided(flat, flat.data(64), [0.25, 0.5, 1.0])
        >>> bool((found.shares.diff(dim=0) < 0).all())  # more noise decides less
        True
    """

    options = DECIDED.said(locals())
    states = check_data(model, x, "x", dtype, device)
    if len(states) < 2:
        raise ValueError(f"x must have at least 2 images, but has {len(states)}.")
    bound, settings = split(model, options, len(states), DECIDED)
    if not bound.process.has_scales:
        raise ValueError(
            f"decided frequencies need noise levels with numbers alpha and sigma, but {bound.process} has none."
        )
    seed = check_count("seed", seed, None, None)
    data = _about_mean(states)
    known = _levels(bound.process, levels, data)
    rows = torch.arange(len(states)).split(settings.batch_size or ROWS)
    shares = []
    for number, level in enumerate(known.tolist()):
        parts = [
            _error(bound.rows(index), states[index], index, level, number, seed) for index in rows
        ]
        shares.append(1 - torch.stack(parts).sum(0).cpu() / len(states) / data.power)
    return Decided(data, known, torch.stack(shares))


def _about_mean(x: Tensor) -> Spectrum:
    each = spectrum(x - x.mean(0, keepdim=True))
    power = each.power.sum(0).cpu() / (len(x) - 1)
    if not bool((power > 0).all()):
        raise ValueError("x must vary at all frequencies, but some have no power.")
    return Spectrum(each.frequencies.cpu(), power, each.counts.cpu())


def _levels(process: Process, levels: Sequence[float] | None, data: Spectrum) -> Tensor:
    low = process.noise_level(process.t_min) * EDGE
    high = process.noise_level(process.t_max) / EDGE
    if levels is None:
        first, last = (float(end.sqrt().log()) for end in (data.power.min(), data.power.max()))
        spread = torch.linspace(first - BEYOND, last + BEYOND, COUNT, dtype=torch.float64).exp()
        return spread.clamp(low, high).unique()
    known = torch.tensor(sorted(set(check_numbers("levels", levels))), dtype=torch.float64)
    if not low <= float(known[0]) <= float(known[-1]) <= high:
        raise ValueError(
            f"levels must lie inside the domain of {process}, from {low:.3g} to {high:.3g}, but go from "
            f"{known[0]:.3g} to {known[-1]:.3g}."
        )
    return known


@torch.no_grad()
def _error(
    model: ScoreModel, x: Tensor, index: Tensor, level: float, number: int, seed: int
) -> Tensor:
    r"""The power of the error in each ring, summed over images."""

    z = keyed_normal(seed, index.to(x.device), PROBES, number, x[0].numel()).to(x).reshape(x.shape)
    t = model.process.time(torch.tensor(-math.log(level), dtype=torch.float64))
    alpha = model.process.scales(t)[0].to(x)
    return spectrum(model.denoise(alpha * (x + level * z), t) - x).power.sum(0)
