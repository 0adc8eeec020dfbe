r"""Pictures."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from .stored import replacing

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def tile(x: Tensor, columns: int | None = None, gap: int = 0) -> np.ndarray:
    r"""Returns images side by side as one picture, with shape (rows H, columns W).

    Arguments:
        x: Grey images, with shape (B, 1, H, W) or (B, H, W).
        columns: The number of columns. By default, the picture is about square.
        gap: The grey pixels between images.
    """

    images = x.detach().cpu().float()
    images = images[:, 0] if images.ndim == 4 else images
    if images.ndim != 3:
        raise ValueError(f"pictures need shape (B, 1, H, W), but got {tuple(x.shape)}.")
    images = functional.pad(images, (0, gap, 0, gap))
    count, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    blank = images.new_full((rows * columns - count, height, width), -1.0)
    cells = np.concatenate([images.numpy(), blank.numpy()]).reshape(rows, columns, height, width)
    return cells.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)  # type: ignore[no-any-return]


def images(
    file: Path, groups: Mapping[str, Tensor], *, columns: int = 8, across: int | None = None
) -> None:
    r"""Draws groups of images, each under its title.

    Arguments:
        file: The file to write.
        groups: Titles, and images of shape (B, 1, H, W).
        columns: The images in a row of a group.
        across: The groups in a row. By default, all.
    """

    across = across or len(groups)
    down = math.ceil(len(groups) / across)
    pictures = {title: tile(x, columns, gap=1) for title, x in groups.items()}
    high, wide = next(iter(pictures.values())).shape
    width = wide / 25  # inches: a pixel of 8 x 8 images is to be seen
    figure, axes = _figure(down, across, (width, width * high / wide + 0.5))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=False):
        axis.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
    for axis in axes:
        axis.axis("off")
    _write(figure, file)


def check_gif(file: Path) -> None:
    r"""Refuses a file that cannot hold an animation."""

    if file.suffix != ".gif":
        raise ValueError(f"an animation needs a gif file, not {file.name!r}.")


def animate(
    file: Path, path: Tensor, *, columns: int | None = None, seconds: float = 3.0, zoom: int = 8
) -> None:
    r"""Writes the images of a path as an animated GIF, which rests at its end.

    Arguments:
        file: The file to write.
        path: Grey images on [-1, 1], with shape (n, B, 1, H, W), such as the path of an edit.
        columns: The images in a row. By default, each picture is about square.
        seconds: How long it takes, without the rest.
        zoom: The pixels of the picture for each of the images.
    """

    from PIL import Image

    check_gif(file)
    pictures = []
    for x in path:
        grey = (tile(x.clamp(-1, 1), columns, gap=1) + 1) * 127.5
        pixels = np.kron(grey, np.ones((zoom, zoom))).round().astype(np.uint8)
        pictures.append(Image.fromarray(pixels))
    step = max(20, round(1000 * seconds / len(pictures)))
    with replacing(file) as part:
        pictures[0].save(part, format="GIF", save_all=True, append_images=pictures[1:], loop=0,
                         duration=[step] * (len(pictures) - 1) + [1500])  # fmt: skip


def histogram(
    file: Path, groups: Mapping[str, tuple[Tensor, str]], label: str, *, bins: int = 40
) -> None:
    r"""Draws histograms over one another.

    Arguments:
        file: The file to write.
        groups: Names, and values of shape (N,) with the words that the legend adds.
        label: What the values are.
        bins: The number of bins over the range of all values.
    """

    figure, [axis] = _figure(1, 1, (6.0, 3.4))
    every = np.concatenate([values.numpy() for values, _ in groups.values()])
    edges = np.linspace(every.min(), every.max(), bins + 1)
    for name, (values, words) in groups.items():
        axis.hist(values.numpy(), edges, alpha=0.6, label=f"{name}: {words}")
    axis.set_xlabel(label)
    axis.set_ylabel("images")
    axis.legend(frameon=False)
    _write(figure, file)


def bars(file: Path, values: Mapping[str, float], label: str) -> None:
    r"""Draws numbers as bars on a logarithmic axis, the largest on top.

    Arguments:
        file: The file to write.
        values: Names, and positive numbers.
        label: What the numbers are.
    """

    figure, [axis] = _figure(1, 1, (6.0, 0.4 * len(values) + 1.0))
    ranked = sorted(values.items(), key=lambda entry: entry[1])
    found = axis.barh([name for name, _ in ranked], [value for _, value in ranked])
    axis.bar_label(found, [f"{value:.2g}" for _, value in ranked], padding=3)
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.set_xlabel(label)
    _write(figure, file)


def curves(
    file: Path,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
) -> None:
    r"""Draws curves on logarithmic axes.

    Arguments:
        file: The file to write.
        lines: Names, and points of each curve.
        x_label: What is across.
        y_label: What is up.
    """

    figure, [axis] = _figure(1, 1, (7.0, 4.6))
    markers = "osv^D<>pPX*hd"
    for i, (name, points) in enumerate(lines.items()):
        xs, ys = zip(*points, strict=True)
        line, marker = "-" if i < 10 else "--", markers[i % len(markers)]
        axis.loglog(xs, ys, line, marker=marker, markersize=4, linewidth=1, label=name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _write(figure, file)


def work_precision(
    file: Path,
    lines: Mapping[str, Sequence[tuple[float, float, float]]],
    front: Sequence[tuple[float, float]],
    label: str,
    base: float | None = None,
) -> None:
    r"""Draws error against network calls on logarithmic axes, with the best at each cost marked.

    Curves that are best somewhere are drawn in colour, in the order of their last error; the rest
    stay grey, and are told apart by their markers. Distances may be negative: near zero, within their
    standard errors, the axis is linear.

    Arguments:
        file: The file to write.
        lines: Names, and points of each curve: calls, error, and its standard error.
        front: The points that nothing beats at as many calls or fewer.
        label: What is up.
        base: What the exact flow reaches.
    """

    figure, [axis] = _figure(1, 1, (7.0, 4.6))
    best, markers = set(front), "osv^D<>pPX*hd"
    colours = itertools.cycle(_colours())
    axis.plot(*zip(*front, strict=True), color="0.8", linewidth=6, zorder=0, label="best")
    if base is not None:
        axis.axhline(base, color="black", linewidth=0.8, linestyle=":", label="exact flow")
    for i, (name, points) in enumerate(sorted(lines.items(), key=lambda line: line[1][-1][1])):
        good = any((calls, error) in best for calls, error, _ in points)
        calls, errors, spread = zip(*points, strict=True)
        axis.errorbar(
            calls, errors, spread if any(spread) else None, fmt="-" if good else "--",
            marker=markers[i % len(markers)], color=next(colours) if good else "0.6",
            markersize=4 if good else 3, elinewidth=0.6, linewidth=1.4 if good else 0.7,
            zorder=3 if good else 1, label=name,
        )  # fmt: skip
    axis.set_xscale("log")
    spreads = [spread for points in lines.values() for _, _, spread in points if spread]
    if spreads:
        axis.set_yscale("symlog", linthresh=sorted(spreads)[len(spreads) // 2])
    else:
        axis.set_yscale("log")
    _plain_numbers(axis.xaxis)
    axis.set_xlabel("network calls per sample")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _write(figure, file)


def _plain_numbers(axis: Any) -> None:
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.ScalarFormatter())
    axis.set_minor_formatter(ticker.NullFormatter())


def _colours() -> Sequence[Any]:
    import matplotlib

    return matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    try:
        import matplotlib
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'scoresde[plots]'.") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False
        )
    return figure, list(axes.flat)


def _write(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    file.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(file, dpi=130, bbox_inches="tight")
    pyplot.close(figure)
