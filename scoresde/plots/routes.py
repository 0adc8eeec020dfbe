r"""Quantities along a trajectory: lengths, angles, and estimates as a film strip."""

import math
from pathlib import Path

import numpy as np
import torch

from solvers.doors.signatures import checked

from ..geometry import Trajectory, measure
from ..models.checks import check_count
from . import figures
from .pictures import tile

COSINE = "cosine, mean over samples"
LENGTH = "length, root mean square"
GROUPS = {
    LENGTH: {
        "way": "way to the estimate",
        "difference": "difference of predictions",
        "push": "push: what guidance adds",
        "step": "step",
        "noise": "fresh noise",
    },
    COSINE: {
        "cos(push, way)": "push and way to the estimate",
        "cos(push, estimate)": "push and estimate",
        "cos(push, last)": "push and last push",
    },
    "share": {"push / way": "push, of the way", "hidden": "of a step, hidden by the best plane"},
}


@checked
def trajectory(file: str | Path, followed: Trajectory) -> None:
    r"""Draws lengths, angles and fractions against the noise level, averaged over the samples.

    Arguments:
        file: The file to write.
        followed: The trajectory of :func:`scoresde.geometry.follow`; see :func:`scoresde.geometry.measure`.

    Examples:
        >>> ss.plots.trajectory(folder / "lengths.png", ss.geometry.follow(model, 2, steps=3))
        >>> (folder / "lengths.png").exists()
        True
    """

    figures.check_picture(Path(file))
    rows = measure(followed)
    groups = {words: [n for n in names if n in rows[0]] for words, names in GROUPS.items()}
    groups = {words: names for words, names in groups.items() if names}
    made, axes = figures.figure(1, len(groups), (4.2, 3.4))
    for axis, (words, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            known = [(row["noise level"], row[name]) for row in rows if not math.isnan(row[name])]
            if words == LENGTH and not any(length > 0 for _, length in known):
                continue  # such as the noise of a deterministic solver
            label = GROUPS[words][name]
            axis.plot(
                *zip(*known, strict=True), marker="o", markersize=3, linewidth=1, label=label
            )
        if words == COSINE:  # two standard deviations for random directions
            bound = 2 / math.sqrt(followed.dimension * followed.states.shape[1])
            axis.axhspan(-bound, bound, color="0.9", zorder=0, label="directions at random")
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.set_xlabel("noise level")
        axis.set_ylabel(words)
        axis.grid(alpha=0.3, linewidth=0.5)
        figures.legend(axis)
    axes[0].set_yscale("log")
    figures.write(made, Path(file))


@checked
def film(file: str | Path, followed: Trajectory, *, sample: int = 0, columns: int = 12) -> None:
    r"""Draws the noisy image and its estimates along a trajectory, with one column per step.

    Arguments:
        file: The file to write.
        followed: The trajectory of grey images, with shape (1, H, W).
        sample: The index of the sample.
        columns: The maximum number of columns; steps are skipped evenly.

    Raises:
        ValueError: If there is no such sample, or it is not a grey image.

    Examples:
        >>> way = ss.geometry.follow(ss.load("digits"), 1, steps=2, label=torch.tensor([3]))
        >>> ss.plots.film(folder / "film.png", way)
        >>> (folder / "film.png").exists()
        True
    """

    figures.check_picture(Path(file))
    columns = check_count("columns", columns, at_least=1)
    shape, samples = tuple(followed.states.shape[2:]), followed.states.shape[1]
    if not 0 <= sample < samples:
        raise ValueError(f"sample must lie in [0, {samples - 1}], but is {sample}.")
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
