r"""The surroundings of a picture of geometry: the density behind it, its limits, and the images beside it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry import Density, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 160  # points of the grid of a density, along each axis
MARGIN = 0.12
FALL, SHADES = 7.0, 30  # range of the log-density that is drawn; and the steps of grey
LINES = torch.tensor([-4.5, -2.0, -0.5])  # levels of the log-density of data, below its maximum


def limits(axis: "Axes", box: Tensor) -> None:
    r"""Sets the limits of an axis to a box plus a margin, with one scale for all directions.

    Arguments:
        axis: The axis.
        box: The corners, with shape (2, k).
    """

    low, high = square(box)
    axis.set_xlim(float(low[0]), float(high[0]))
    axis.set_ylim(float(low[1]), float(high[1]))
    if len(low) == 3:
        axis.set(zlim=(float(low[2]), float(high[2])))
    axis.set_aspect("equal")


def shade(axis: "Axes", density: Density, box: Tensor, level: float, lowest: float) -> None:
    r"""Draws the density of noisy data behind two-dimensional data, and that of clean data as lines.

    Arguments:
        axis: The axis.
        density: The log-density, of points and a noise level.
        box: The corners, with shape (2, 2).
        level: The noise level.
        lowest: The noise level of the data.
    """

    low, high = square(box)
    axes = [torch.linspace(float(a), float(b), POINTS) for a, b in zip(low, high, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1).reshape(-1, 2)
    across, up = (values.tolist() for values in axes)
    with torch.no_grad():
        noisy, clean = (_asked(density, grid, s) for s in (level, lowest))
    top = float(noisy.max())
    heights = torch.linspace(max(top - FALL, float(noisy.min())), top, SHADES).tolist()
    axis.contourf(across, up, noisy.tolist(), heights, cmap="Greys", zorder=0,
                  vmax=top + 1.5 * (top - heights[0]))  # fmt: skip
    lines = (float(clean.max()) + LINES).tolist()
    axis.contour(
        across, up, clean.tolist(), lines, colors="0.55", linewidths=0.7, linestyles="-", zorder=1
    )


def thumbnails(
    figure: "Figure", trajectory: Trajectory, sample: int, i: int, colours: Mapping[str, str]
) -> None:
    r"""Draws the noisy image and its estimates beside a picture, if the data are grey images.

    Arguments:
        figure: The figure.
        trajectory: The trajectory.
        sample: The index of the sample.
        i: The index of the state.
        colours: The names of the estimates, and their colours.
    """

    shape = trajectory.states.shape[2:]
    if len(shape) != 3 or shape[0] != 1:
        return
    level = float(trajectory.levels[i])
    shown = trajectory.data_std / (level**2 + trajectory.data_std**2) ** 0.5
    cells = {"noisy point": (shown * trajectory.states[i, sample], "black")}
    for name, colour in colours.items():
        cells[f"{name}"] = (trajectory.estimates[name][i, sample], colour)
    for k, (name, (image, colour)) in enumerate(cells.items()):
        column, row = k % 2, k // 2
        axis = figure.add_axes((0.69 + 0.15 * column, 0.3 - 0.19 * row, 0.13, 0.15))
        axis.imshow(
            image[0].cpu().float().numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest"
        )
        axis.set_title(name, fontsize=8, color=colour)
        axis.set_xticks([])
        axis.set_yticks([])


def square(box: Tensor) -> tuple[Tensor, Tensor]:
    r"""The corners of the smallest cube around a box and its margin."""

    middle, half = box.mean(0), float((box[1] - box[0]).max()) / 2
    half = half * (1 + 2 * MARGIN) if half > 0 else 1.0
    return middle - half, middle + half


def _asked(density: Density, grid: Tensor, level: float) -> Tensor:
    found = density(grid, level)
    if not isinstance(found, Tensor) or found.shape != grid.shape[:1] or bool(found.isnan().any()):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"density must return one log-density per point, with shape ({len(grid)},) and no NaN, not {shape}."
        )
    return found.reshape(POINTS, POINTS).cpu()
