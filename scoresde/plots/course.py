r"""What goes on along a trajectory: lengths, angles, estimates as a strip of film."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..geometry import Trajectory, measure
from . import figures
from .pictures import tile

LENGTHS = ("way", "difference", "push", "step", "noise")
ANGLES = ("cos(push, way)", "cos(push, estimate)", "cos(push, last)")
SHARES = ("push / way", "hidden")


def trajectory(file: str | Path, followed: Trajectory) -> None:
    r"""Draws lengths, angles and shares against the noise level, averaged over the samples.

    Arguments:
        file: The file to write.
        followed: The trajectory of :func:`scoresde.geometry.follow`; see :func:`scoresde.geometry.measure`.
    """

    rows = measure(followed)
    made, axes = figures.figure(1, 3, (4.2, 3.4))
    groups = (("length, root mean square", LENGTHS), ("cosine", ANGLES), ("share", SHARES))
    for axis, (words, names) in zip(axes, groups, strict=True):
        for name in names:
            if name in rows[0]:
                known = [
                    (row["noise level"], row[name]) for row in rows if not math.isnan(row[name])
                ]
                axis.plot(
                    *zip(*known, strict=True), marker="o", markersize=3, linewidth=1, label=name
                )
        _by_level(axis)
        axis.set_ylabel(words)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7)
    axes[0].set_yscale("log")
    bound = 2 / math.sqrt(followed.dimension)  # two deviations of the cosine of random directions
    axes[1].axhspan(-bound, bound, color="0.9", zorder=0)
    axes[1].set_title("grey: directions at random", fontsize=8)
    figures.write(made, Path(file))


def film(file: str | Path, followed: Trajectory, *, sample: int = 0, columns: int = 12) -> None:
    r"""Draws the noisy image and its estimates along a trajectory, one column for a step.

    Arguments:
        file: The file to write.
        followed: The trajectory of grey images, with shape (1, H, W).
        sample: Which sample.
        columns: The largest number of columns; steps are left out evenly.
    """

    shape = tuple(followed.states.shape[2:])
    if len(shape) != 3 or shape[0] != 1:
        raise ValueError(f"a film is of grey images, with shape (1, H, W), not {shape}.")
    count = len(followed.levels)
    index = torch.linspace(0, count - 1, min(columns, count)).round().long()
    shrunk = followed.data_std / (followed.levels**2 + followed.data_std**2).sqrt()
    strips = {
        "noisy": shrunk.to(followed.states).reshape(-1, 1, 1, 1) * followed.states[:, sample]
    }
    strips |= {name: estimate[:, sample] for name, estimate in followed.estimates.items()}
    height, width = len(strips), len(index)
    made, [axis] = figures.figure(1, 1, (0.7 * width + 1, 0.7 * height + 0.6))
    picture = np.concatenate([tile(strip[index], width, gap=1) for strip in strips.values()])
    axis.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    places = (torch.arange(width) + 0.5) * picture.shape[1] / width - 0.5
    axis.set_xticks(places.tolist(), [f"{s:.2g}" for s in followed.levels[index].tolist()])
    rows = (torch.arange(height) + 0.5) * picture.shape[0] / height - 0.5
    axis.set_yticks(rows.tolist(), list(strips))
    axis.set_xlabel("noise level")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    figures.write(made, Path(file))


def _by_level(axis: Any) -> None:
    axis.set_xscale("log")
    axis.invert_xaxis()
    axis.set_xlabel("noise level")
    axis.grid(alpha=0.3, linewidth=0.5)
