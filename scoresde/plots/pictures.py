r"""Images side by side, and as animations."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from solvers.doors.signatures import checked

from ..doors.amounts import positive
from ..doors.data import as_floats
from ..models.checks import check_count, check_finite
from . import figures
from .movie import check_gif, write_gif

LARGEST = 100  # pixels between images, and of each of them
LONGEST = 3600.0  # seconds of an animation


@checked
def tile(x: Tensor, columns: int | None = None, gap: int = 0) -> np.ndarray:
    r"""Returns images side by side as one picture, with shape (rows H, columns W), or (rows H, columns W, 3).

    Arguments:
        x: Grey images, with shape (B, 1, H, W) or (B, H, W), or colour images, with shape (B, 3, H, W).
        columns: The number of columns. By default, the picture is about square.
        gap: The number of pixels between images. They are grey, as are the empty places of the last row.

    Raises:
        ValueError: If `x` has not the shape of images.

    Examples:
        >>> ss.plots.tile(torch.zeros(6, 1, 8, 8), columns=3).shape
        (16, 24)
    """

    images = as_floats("x", x, least=3).detach().cpu().float()
    columns = check_count("columns", columns, at_least=1)
    gap = check_count("gap", gap, at_least=0, at_most=LARGEST)
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"pictures need shape (B, 1, H, W) or (B, 3, H, W), but got {tuple(x.shape)}."
        )
    images = functional.pad(images, (0, gap, 0, gap))
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    blank = images.new_zeros(rows * columns - count, channels, height, width)
    cells = torch.cat([images, blank]).reshape(rows, columns, channels, height, width)
    picture = cells.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return (picture[..., 0] if channels == 1 else picture).numpy()  # type: ignore[no-any-return]


@checked
def images(
    file: str | Path,
    groups: Mapping[str, Tensor] | Tensor,
    *,
    columns: int = 8,
    across: int | None = None,
    low: float = -1.0,
    high: float = 1.0,
) -> None:
    r"""Draws groups of images, each under its title.

    Arguments:
        file: The file to write.
        groups: Titles, and images with shape (B, 1, H, W) or (B, 3, H, W); or images alone.
        columns: The number of images in a row of a group.
        across: The number of groups in a row. By default, all.
        low: The value of black.
        high: The value of white.

    Raises:
        ValueError: If the file is not of a picture, `x` not of images, or `low` not below `high`.

    Examples:
        >>> ss.plots.images(folder / "images.png", torch.zeros(4, 1, 8, 8))
        >>> (folder / "images.png").exists()
        True
    """

    figures.check_picture(Path(file))
    named = figures.titled("groups", groups)
    low, high = check_finite("low", low), check_finite("high", high)
    if not low < high:
        raise ValueError(f"low must be below high, but they are {low:g} and {high:g}.")
    across = check_count("across", across, at_least=1, at_most=figures.ACROSS) or len(named)
    down = math.ceil(len(named) / across)
    known = {title: as_floats(title or "groups", x, least=3) for title, x in named.items()}
    pictures = {
        title: tile(2 * (x - low) / (high - low) - 1, columns, gap=1) for title, x in known.items()
    }
    height, wide = next(iter(pictures.values())).shape[:2]
    width = wide / 25  # inches: pixels of 8 x 8 images must be visible
    figure, axes = figures.figure(down, across, (width, width * height / wide + 0.5))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=False):
        shown = picture if picture.ndim == 2 else (picture.clip(-1, 1) + 1) / 2
        axis.imshow(shown, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
    for axis in axes:
        axis.axis("off")
    figures.write(figure, Path(file))


@checked
def animate(
    file: str | Path,
    path: Tensor,
    *,
    columns: int | None = None,
    seconds: float = 3.0,
    zoom: int = 8,
) -> None:
    r"""Writes the images of a path as an animated GIF, which pauses at its end.

    Arguments:
        file: The file to write.
        path: Grey images on [-1, 1], with shape (n, B, 1, H, W), such as the path of an edit.
        columns: The number of images in a row. By default, each picture is about square.
        seconds: The duration in seconds, without the pause at the end.
        zoom: The number of pixels of the picture per image pixel, along each side.

    Raises:
        ValueError: If the file is not a gif, or the images are not grey.

    Examples:
        >>> ss.plots.animate(folder / "path.gif", torch.zeros(3, 1, 1, 8, 8), seconds=0.1)
        >>> (folder / "path.gif").exists()
        True
    """

    file = Path(file)
    check_gif(file)
    zoom = check_count("zoom", zoom, at_least=1, at_most=LARGEST)
    seconds = positive("seconds", seconds, most=LONGEST)
    pictures = []
    states = as_floats("path", path, least=4)
    if states.ndim == 5 and states.shape[2] != 1:
        raise ValueError(
            f"animations need grey images, (n, B, 1, H, W), but got {tuple(path.shape)}."
        )
    for x in states:
        grey = (tile(x.clamp(-1, 1), columns, gap=1) + 1) * 127.5
        pictures.append(np.kron(grey, np.ones((zoom, zoom))).round().astype(np.uint8))
    write_gif(file, pictures, seconds)
