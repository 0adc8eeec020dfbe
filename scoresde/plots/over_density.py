r"""The paths of many samples over the density of noisy data, or images on their way from noise."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..geometry import Density, Trajectory
from ..models.checks import check_count
from . import figures
from .backdrop import limits, shade
from .landscapes import MOVIES
from .movie import write_gif, write_page
from .pictures import images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (5.0, 5.2)
WIDE = 2.5  # root mean squares of the data to each side of zero
FULL = 100  # paths that are drawn dark; more paths are fainter
FEW = 32  # images that are shown


@checked
def paths(
    file: str | Path,
    trajectory: Trajectory,
    *,
    step: int | None = None,
    density: Density | None = None,
    seconds: float = 6.0,
) -> None:
    r"""Draws all samples of a trajectory at one state, with their paths up to it.

    Two-dimensional states are drawn over the density of noisy data of their noise level s, on one scale,

    .. math:: X \Big/ \sqrt{1 + s^2 / c^2} ,

    where c is the root mean square of the data. Images are drawn on the same scale above their estimates.

    Arguments:
        file: The file to write: a picture, or, for two-dimensional data, a .gif or an .html with a slider, which
            show all states.
        trajectory: The trajectory of :func:`scoresde.geometry.follow`.
        step: The index of the state, from 0, which is noise. By default, the last.
        density: The log-density behind two-dimensional data, as a function of points in units of the data, with
            shape (n, 2), and a noise level. By default, that of the model, if it is known.
        seconds: The duration of an animation.

    Raises:
        ValueError: If there is no such state, or samples are neither points with two entries nor images.

    Examples:
        >>> way = ss.geometry.follow(model, 20, steps=3)
        >>> ss.plots.paths(folder / "paths.png", way, step=2)
        >>> (folder / "paths.png").exists()
        True
    """

    file, shape = Path(file), tuple(trajectory.states.shape[2:])
    flat, last = shape == (2,), len(trajectory.states) - 1
    figures.check_picture(file, MOVIES if flat else ())
    step = check_count("step", step, at_least=0, at_most=last)
    if file.suffix in MOVIES:
        if step is not None:
            raise ValueError("an animation shows all states; leave out step=, or write a picture.")
        behind = density or trajectory.density
        pictures = [figures.pixels(_points(trajectory, i, behind)) for i in range(last + 1)]
        if file.suffix == ".gif":
            write_gif(file, pictures, seconds)
        else:
            write_page(file, pictures, seconds, "Samples, step by step")
        return
    at = last if step is None else step
    if flat:
        figures.write(_points(trajectory, at, density or trajectory.density), file)
    elif len(shape) == 3:
        _images(file, trajectory, at)
    else:
        raise ValueError(
            f"paths are drawn of points with 2 entries and of images, not of samples of shape {shape}; "
            "plots.trajectory draws their lengths and angles."
        )


def _points(trajectory: Trajectory, i: int, density: Density | None) -> "Figure":
    scales = _scales(trajectory, trajectory.levels)
    shown = (trajectory.states / scales[:, None, None].to(trajectory.states)).cpu()
    made, [axis] = figures.figure(1, 1, SIZE)
    half = WIDE * trajectory.data_std
    box = torch.tensor([[-half, -half], [half, half]])
    if density is not None:
        level, lowest = float(trajectory.levels[i]), float(trajectory.levels[-1])
        shade(axis, _scaled(trajectory, density), box, level, lowest)
    fainter = min(1.0, FULL / len(trajectory))
    for path in shown[: i + 1].transpose(0, 1):
        figures.line(axis, path, color="tab:blue", linewidth=0.6, alpha=0.15 + 0.35 * fainter)
    figures.dots(axis, shown[i], color="tab:red", s=12, zorder=5, linewidths=0)
    limits(axis, box)
    axis.set_title(_words(trajectory, i))
    axis.set_xlabel("first entry, on the scale of the data")
    axis.set_ylabel("second entry, on the scale of the data")
    return made


def _images(file: Path, trajectory: Trajectory, i: int) -> None:
    noisy = (trajectory.states[i] / _scales(trajectory, trajectory.levels)[i])[:FEW]
    name, estimates = next(iter(trajectory.estimates.items()))
    groups = {_words(trajectory, i): noisy, f"{name} estimates": estimates[i, :FEW]}
    images(file, groups, columns=16, across=1)


def _words(trajectory: Trajectory, i: int) -> str:
    last = len(trajectory.levels) - 1
    return f"state {i} of 0 to {last}: noise level {float(trajectory.levels[i]):.3g}"


def _scaled(trajectory: Trajectory, density: Density) -> Density:
    r"""The density as a function of points on the scale of the data."""

    def scaled(y: Tensor, level: float) -> Tensor:
        return density(float(_scales(trajectory, torch.tensor(level))) * y, level)

    return scaled


def _scales(trajectory: Trajectory, levels: Tensor) -> Tensor:
    r"""The standard deviations of the states at some noise levels, in those of the data."""

    return (1 + (levels / trajectory.data_std) ** 2).sqrt()
