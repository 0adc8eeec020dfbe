r"""Power spectra of images, and which frequencies noise hides.

Natural images have more power at low frequencies, and noise has equal power at all. So at the noise level s, in
units of the data, frequencies with a power below :math:`s^2` are hidden, and a diffusion model draws images from
coarse to fine.

References:
    | Diffusion is Spectral Autoregression (Dieleman, 2024)
    | https://sander.ai/2024/09/02/spectral-autoregression.html
"""

import math

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from .frequency_order import Decided, decided
from .power import Spectrum, spectrum
from .trajectory import Trajectory

__all__ = ["Decided", "Spectrum", "coarse_to_fine", "decided", "hinge", "power_law", "spectrum"]


@checked
def hinge(data: Spectrum, level: float) -> float:
    r"""Returns the frequency at which the power of data falls to that of noise, in cycles per pixel.

    Below it, the data dominates; above it, the noise. It is interpolated between rings on logarithmic power, and
    is `inf` if the data dominates everywhere, and 0 if nowhere.

    Arguments:
        data: The spectrum of data, averaged over all its leading axes.
        level: The noise level :math:`s = \sigma / \alpha`.

    Raises:
        ValueError: If `level` is not positive.

    Examples:
        >>> frequencies, power = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([4.0, 1.0, 0.25])
        >>> falling = ss.spectra.Spectrum(frequencies, power, torch.ones(3))
        >>> round(ss.spectra.hinge(falling, 1.0), 4)
        0.2
    """

    if not level > 0:
        raise ValueError(f"level must be positive, but is {level}.")
    excess = (_mean_power(data).log() - 2 * math.log(level)).tolist()
    above = [i for i, value in enumerate(excess) if value >= 0]
    if not above:
        return 0.0
    for i in range(above[0] + 1, len(excess)):
        if excess[i] < 0:
            share = excess[i - 1] / (excess[i - 1] - excess[i])
            low, high = data.frequencies[i - 1 : i + 1].tolist()
            return float(low + share * (high - low))
    return math.inf


@checked
def power_law(data: Spectrum) -> tuple[float, float]:
    r"""Returns the factor c and the exponent a of the power law :math:`P(f) = c \, f^{-a}` that fits best.

    The fit is by least squares of logarithms over the rings from one cycle per image to half a cycle per pixel,
    without the corners beyond.
    Photographs have exponents of about 2.

    Arguments:
        data: The spectrum of data, averaged over all its leading axes.

    Raises:
        ValueError: If fewer than two rings have power.

    Examples:
        >>> frequencies = torch.tensor([0.1, 0.2, 0.4])
        >>> falling = ss.spectra.Spectrum(frequencies, 3 * frequencies**-2.0, torch.ones(3))
        >>> [round(number, 4) for number in ss.spectra.power_law(falling)]
        [3.0, 2.0]
    """

    frequencies, power = data.frequencies.double().cpu(), _mean_power(data).double().cpu()
    edge = 0.5 + float(frequencies[frequencies > 0].min()) / 2 if len(frequencies) > 1 else 0.5
    inside = (frequencies > 0) & (frequencies <= edge) & (power > 0)
    if int(inside.sum()) < 2:
        raise ValueError(
            "data must have power in at least two rings between 0 and half a cycle per pixel."
        )
    x, y = frequencies[inside].log(), power[inside].log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return math.exp(float(y.mean()) - slope * float(x.mean())), -slope


@checked
def coarse_to_fine(trajectory: Trajectory) -> tuple[Spectrum, Tensor]:
    r"""Returns the power of the estimates during sampling, and the noise levels at which rings reach half of it.

    This is the power of the estimates minus their mean over the samples. For normal data with the power P in a
    ring, the estimates have the power :math:`P^2 / (P + s^2)`, so half is reached at the level :math:`\sqrt P`:
    if the power falls with the frequency, images are drawn from coarse to fine.

    Arguments:
        trajectory: The trajectory of at least two images of :func:`scoresde.geometry.follow`.

    Returns:
        The spectrum, averaged over samples, with power of shape (n + 1, k), and the noise levels, with shape
        (k,), or NaN for rings that never have less than half.

    Raises:
        ValueError: If the run is not of at least two images.

    Examples:
        >>> flat = ss.GaussianOracle(torch.zeros(1, 8, 8), 0.5)
        >>> found, levels = ss.spectra.coarse_to_fine(ss.geometry.follow(flat, 4, steps=3))
        >>> found.power.shape[0], levels.shape == found.frequencies.shape
        (4, True)
    """

    D = trajectory.guided
    if D.ndim != 5:
        raise ValueError(f"spectra are of images, with shape (C, H, W), not {tuple(D.shape[2:])}.")
    if D.shape[1] < 2:
        raise ValueError("coarse_to_fine needs at least two samples; follow more.")
    each = spectrum(D - D.mean(1, keepdim=True))
    power = each.power.sum(1).cpu() / (D.shape[1] - 1)
    share, levels = power / power[-1], trajectory.levels.log()
    settled = []
    for ring in share.T:
        below = (ring < 0.5).nonzero()[:, 0]
        if not len(below) or below[-1] + 1 == len(ring):
            settled.append(math.nan)
            continue
        i = int(below[-1])
        weight = float((0.5 - ring[i]) / (ring[i + 1] - ring[i]))
        settled.append(math.exp(float(torch.lerp(levels[i], levels[i + 1], weight))))
    return Spectrum(each.frequencies.cpu(), power, each.counts.cpu()), torch.tensor(settled)


def _mean_power(data: Spectrum) -> Tensor:
    return data.power.reshape(-1, data.power.shape[-1]).mean(0)
