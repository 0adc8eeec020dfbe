r"""Power spectra: the frequencies that noise hides, and the order in which sampling restores them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..geometry import Trajectory
from ..geometry.spectra import coarse_to_fine, hinge
from ..geometry.spectra import spectrum as power_spectrum
from . import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = (0.1, 0.3, 1.0, 3.0)
CURVES, HIGHEST = 6, 10.0  # of estimates; and the first noise level, in scales of the data


@checked
def spectrum(
    file: str | Path,
    x: Tensor,
    *,
    levels: Sequence[float] = LEVELS,
    followed: Trajectory | None = None,
    seed: int = 0,
) -> dict[float, float]:
    r"""Draws the power spectrum of images with and without noise, and of the estimates during sampling.

    Dots mark the hinges, where the power of data falls to that of noise.

    Arguments:
        file: The file to write.
        x: Images, with shape (B, C, H, W).
        levels: The noise levels, in units of the data.
        followed: A trajectory of images, for a second picture.
        seed: The seed of the noise.

    Returns:
        The hinge of each level, in cycles per pixel, as computed by :func:`scoresde.spectra.hinge`.

    Examples:
        >>> hinges = ss.plots.spectrum(folder / "power.png", model.data(64).reshape(2, 1, 8, 8), levels=[1.0])
        >>> list(hinges)
        [1.0]
    """

    figures.check_picture(Path(file))
    data = power_spectrum(x)
    if x.ndim != 4:
        raise ValueError(f"images have shape (B, C, H, W), not {tuple(x.shape)}.")
    made, axes = figures.figure(1, 1 if followed is None else 2, (5.5, 3.8))
    frequencies = data.frequencies.tolist()
    axes[0].plot(
        frequencies, data.power.mean(0).tolist(), color="black", linewidth=2, label="data"
    )
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    hinges = {float(level): hinge(data, float(level)) for level in levels}
    for i, (level, at) in enumerate(hinges.items()):
        noisy = power_spectrum(x + level * z).power.mean(0).tolist()
        axes[0].plot(
            frequencies, noisy, color=f"C{i}", linewidth=1.2, label=f"noise level {level:g}"
        )
        axes[0].axhline(level**2, color=f"C{i}", linewidth=0.7, linestyle=":")
        if 0 < at < math.inf:
            axes[0].plot([at], [level**2], "o", color=f"C{i}")
    axes[0].set_title("data with noise; dotted: noise alone; dots: hinges", fontsize=9)
    if followed is not None:
        _fill(axes[1], followed)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_xlabel("frequency, cycles per pixel")
        axis.set_ylabel("power")
        axis.grid(alpha=0.3, linewidth=0.5)
        figures.legend(axis)
    figures.write(made, Path(file))
    return hinges


def _fill(axis: "Axes", followed: Trajectory) -> None:
    found, settled = coarse_to_fine(followed)
    frequencies = found.frequencies.tolist()
    first = int((followed.levels > HIGHEST * followed.data_std).sum())
    shown = torch.linspace(first, len(followed.levels) - 2, CURVES).round().long().unique()
    for k, i in enumerate(shown.tolist()):
        colour, level = (k / CURVES, 0.2, 1 - k / CURVES), float(followed.levels[i])
        words = f"at noise level {level:.2g}"
        axis.plot(frequencies, found.power[i].tolist(), linewidth=1, color=colour, label=words)
    axis.plot(frequencies, found.power[-1].tolist(), color="black", linewidth=2, label="last")
    reached = ", ".join("-" if math.isnan(s) else f"{s:.2g}" for s in settled.tolist())
    words = "estimates minus their mean; each ring has half its last power\nat the noise levels"
    axis.set_title(f"{words} {reached}", fontsize=8)
