r"""Power spectra: the frequencies that noise hides, and the order in which sampling restores them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..geometry import Trajectory
from ..geometry.spectra import Decided, coarse_to_fine, hinge, power_law
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

    Raises:
        ValueError: If `images` has not the shape of images.

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


@checked
def decided(file: str | Path, found: Decided) -> None:
    r"""Draws the power spectrum of data, and the share of each ring that estimates decide, by noise level.

    The line is the root of the power, where the noise has the power of the data.

    Arguments:
        file: The file to write.
        found: The result of :func:`scoresde.spectra.decided`.

    Examples:
        >>> flat = ss.GaussianOracle(torch.zeros(1, 8, 8), 0.5)
        >>> ss.plots.decided(folder / "decided.png", ss.spectra.decided(flat, flat.data(8)))
        >>> (folder / "decided.png").exists()
        True
    """

    figures.check_picture(Path(file))
    made, axes = figures.figure(1, 2, (5.5, 3.8))
    frequencies, power = found.data.frequencies, found.data.power
    factor, exponent = power_law(found.data)
    inside = frequencies > 0
    axes[0].loglog(frequencies[inside].tolist(), power[inside].tolist(), "o-", label="data")
    law = factor * frequencies[inside] ** -exponent
    words = f"power law, exponent {exponent:.2f}"
    axes[0].loglog(frequencies[inside].tolist(), law.tolist(), ":", color="black", label=words)
    axes[0].set_ylabel("power")
    shown = axes[1].pcolormesh(
        frequencies.tolist(), found.levels.tolist(), found.shares.clamp(0, 1).tolist(), vmin=0, vmax=1,
        shading="nearest",
    )  # fmt: skip
    made.colorbar(shown, ax=axes[1], label="share of the power that is decided")
    axes[1].plot(
        frequencies.tolist(), power.sqrt().tolist(), color="tab:red", label="root of the power"
    )
    axes[1].plot(frequencies.tolist(), found.halves.tolist(), "k.", label="half decided")
    axes[1].set_yscale("log")
    axes[1].set_ylim(float(found.levels[0]), float(found.levels[-1]))
    axes[1].set_ylabel("noise level")
    for axis in axes:
        axis.set_xlabel("frequency, cycles per pixel")
        figures.legend(axis)
    figures.write(made, Path(file))


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
