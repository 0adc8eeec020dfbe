r"""The radially averaged power spectrum of images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..doors.data import as_floats


@dataclass(frozen=True)
class Spectrum:
    r"""The radially averaged power of images, normalised so that noise of the level s has the power :math:`s^2`.

    Arguments:
        frequencies: The mean frequency of each ring, in cycles per pixel, with shape (k,).
        power: The mean power of each ring, :math:`|\hat x|^2 / (H W)`, with shape (\*, k).
        counts: The number of entries in each ring, with shape (k,). Power times count sums to :math:`\sum x^2`
            of a channel.

    Examples:
        >>> found = ss.spectra.spectrum(torch.ones(2, 1, 8, 8))
        >>> round(float((found.counts * found.power[0]).sum()), 4)  # the sum of the squares
        64.0
    """

    frequencies: Tensor
    power: Tensor
    counts: Tensor

    def __repr__(self) -> str:
        return f"Spectrum(power {tuple(self.power.shape)} at {len(self.frequencies)} frequencies)"


@checked
def spectrum(x: Tensor) -> Spectrum:
    r"""Returns the power spectrum of each image, averaged over its channels.

    Rings are one cycle per image wide, and the outermost ones reach into the corners.

    Arguments:
        x: Images, with shape (\*, C, H, W).

    Raises:
        ValueError: If `x` is not of images.

    Examples:
        >>> found = ss.spectra.spectrum(torch.ones(2, 1, 8, 8))  # of which all power is constant
        >>> found.power[0, 0].item(), round(float(found.power[0, 1:].sum()), 4)
        (64.0, 0.0)
    """

    x = as_floats("x", x)
    if x.ndim < 3 or min(x.shape[-2:]) < 2:
        raise ValueError(
            f"spectra are of images, with shape (*, C, H, W), but x has {tuple(x.shape)}."
        )
    height, width = x.shape[-2:]
    power = torch.fft.fft2(x.double()).abs().square().mean(-3) / (height * width)
    axes = (torch.fft.fftfreq(n, dtype=torch.float64, device=x.device) for n in (height, width))
    radius = torch.hypot(*torch.meshgrid(*axes, indexing="ij")).flatten()
    ring = (radius * max(height, width)).round().long()
    counts = torch.bincount(ring).double()
    full = counts > 0
    sums = torch.zeros(*power.shape[:-2], len(counts), dtype=torch.float64, device=x.device)
    sums.index_add_(-1, ring, power.flatten(-2))
    radii = torch.bincount(ring, weights=radius)
    return Spectrum(radii[full] / counts[full], sums[..., full] / counts[full], counts[full])
