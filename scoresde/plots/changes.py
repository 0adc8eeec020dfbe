r"""Data before and after an edit, and the difference."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..doors.data import Samples, as_pair
from ..models.checks import check_count
from . import figures
from .bands import CHANNELS
from .drawn import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

ROWS = ("before", "after", "difference")
WIDE = 1.3  # inches of an image
SPACE = 0.06  # between images, as a share of their width
COLOURS = "RdBu_r"  # from blue, for less, over white to red, for more


@checked
def before_after(file: str | Path, before: Samples, after: Samples, *, columns: int = 8) -> None:
    r"""Draws samples before and after an edit, with the difference, one sample in each column.

    The difference of images has a colour scale that is symmetric about zero, and that of colour images is the
    mean over channels. Vectors and series (c, n) become curves; points with two entries, arrows.

    Arguments:
        file: The file to write.
        before: Images (1, H, W) or (3, H, W) on [-1, 1], vectors (n,) or series (c, n), with shape (B, \*); or a
            solution that ended in data.
        after: The edited data, or the solution of :func:`scoresde.edit`, with the same shape.
        columns: The number of samples to draw, from the first on.

    Raises:
        ValueError: If the shapes differ, or data of this shape cannot be drawn.

    Examples:
        >>> x = torch.zeros(3, 1, 8, 8)
        >>> ss.plots.before_after(folder / "edit.png", x, x + 0.5)
        >>> (folder / "edit.png").exists()
        True
    """

    figures.check_picture(Path(file))
    columns = check_count("columns", columns, at_least=1, at_most=figures.ACROSS)
    x, y = (a.detach().cpu().double() for a in as_pair(before, after, ("before", "after")))
    if len(x) != len(y):
        raise ValueError(
            f"before and after must be as many samples, but are {len(x)} and {len(y)}."
        )
    x, y = x[:columns], y[:columns]
    shape = tuple(x.shape[1:])
    if len(shape) == 3 and shape[0] in (1, 3):
        _images(Path(file), x, y)
    elif shape == (2,):
        _arrows(Path(file), x, y)
    elif len(shape) == 1 or (len(shape) == 2 and shape[0] <= CHANNELS):
        _curves(Path(file), x.reshape(len(x), -1, shape[-1]), y.reshape(len(x), -1, shape[-1]))
    else:
        raise ValueError(f"samples of shape {shape} cannot be drawn, only {KINDS}.")


def _images(file: Path, x: Tensor, y: Tensor) -> None:
    r"""Three rows of images, and the scale of the difference beside the last."""

    gap, count = (y - x).mean(1, keepdim=True), len(x)
    made, axes = figures.figure(3, 1, (WIDE * count + 0.6, WIDE * x.shape[2] / x.shape[3] + 0.35))
    most = float(gap.abs().max()) or 1.0
    for axis, name, values in zip(axes, ROWS, (x, y, gap), strict=True):
        last = name == "difference"
        top = most if last else 1.0
        style = {"cmap": COLOURS if last else "gray", "vmin": -top, "vmax": top}
        picture = _row(axis, values, style)
        axis.set_title(name, fontsize=9, loc="left")
        axis.axis("off")
        bar = made.colorbar(picture, ax=axis, fraction=0.12 / max(1, count), pad=0.01)
        bar.ax.set_visible(last)
    figures.write(made, file)


def _row(axis: "Axes", values: Tensor, style: Mapping[str, Any]) -> "AxesImage":
    r"""Draws images beside each other, with nothing in between, and returns the last of them."""

    height, width = values.shape[2:]
    step = (1 + SPACE) * width
    for i, image in enumerate(values):
        shown = image[0] if len(image) == 1 else (image.clamp(-1, 1).movedim(0, -1) + 1) / 2
        place = (i * step, i * step + width, height, 0)
        axis.imshow(shown.numpy(), extent=place, interpolation="nearest", **style)
    axis.set_xlim(0, len(values) * step - SPACE * width)
    axis.set_ylim(height, 0)
    return axis.images[-1]


def _curves(file: Path, x: Tensor, y: Tensor) -> None:
    r"""A column for each sample: both curves above, and their difference below."""

    count, places = len(x), range(x.shape[2])
    made, axes = figures.figure(2, count, (2.6, 2.0))
    for i in range(count):
        above, below = axes[i], axes[count + i]
        for channel in range(x.shape[1]):
            colour = f"C{channel}"
            above.plot(places, x[i, channel].tolist(), color="0.6", linewidth=1, label="before")
            above.plot(places, y[i, channel].tolist(), color=colour, linewidth=1, label="after")
            below.plot(places, (y - x)[i, channel].tolist(), color=colour, linewidth=1)
        above.set_title(f"sample {i}", fontsize=9)
        below.axhline(0, color="0.6", linewidth=0.6)
        below.set_xlabel("entry")
    axes[count].set_ylabel("difference")
    _alike(axes[:count])
    _alike(axes[count:], centre=True)
    handles, names = axes[count - 1].get_legend_handles_labels()
    axes[count - 1].legend(handles[:2], names[:2], frameon=False, fontsize=7)
    figures.write(made, file)


def _alike(axes: list["Axes"], *, centre: bool = False) -> None:
    r"""Gives axes one vertical scale, symmetric about zero if it has a centre."""

    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    if centre:
        low, high = -max(-low, high), max(-low, high)
    for axis in axes:
        axis.set_ylim(low, high)


def _arrows(file: Path, x: Tensor, y: Tensor) -> None:
    r"""Points before and after, joined by arrows, which are the differences."""

    made, [axis] = figures.figure(1, 1, (4.0, 4.0))
    gap = y - x
    axis.quiver(*x.T.tolist(), *gap.T.tolist(), angles="xy", scale_units="xy", scale=1, width=0.003,
                color="0.6", label="difference")  # fmt: skip
    for points, name, colour in ((x, "before", "0.4"), (y, "after", "tab:blue")):
        figures.dots(axis, points, color=colour, s=14, label=name)
    both = torch.cat([x, y])
    margin = 0.05 * float((both.amax(0) - both.amin(0)).max()) or 1.0
    axis.set_xlim(float(both[:, 0].min()) - margin, float(both[:, 0].max()) + margin)
    axis.set_ylim(float(both[:, 1].min()) - margin, float(both[:, 1].max()) + margin)
    axis.set_aspect("equal")
    figures.legend(axis)
    figures.write(made, file)
