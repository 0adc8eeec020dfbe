r"""Charts: curves, bars and histograms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from solvers.doors.signatures import checked

from ..doors.data import as_floats
from ..models.checks import check_count, check_several
from . import figures

BINS = 10_000  # of a histogram
MARKERS = "osv^D<>pX*hd"  # with ten colours, sixty curves that can be told apart
MARKER_SIZES = (4.0, 7.0, 5.5)


@checked
def histogram(
    file: str | Path, groups: Mapping[str, tuple[Tensor, str]], label: str, *, bins: int = 40
) -> None:
    r"""Draws overlaid histograms.

    Arguments:
        file: The file to write.
        groups: Names, and values with shape (N,) and the words that the legend adds.
        label: The label of the axis.
        bins: The number of bins over the range of all values.

    Examples:
        >>> ss.plots.histogram(folder / "nats.png", {"digits": (torch.arange(10.0), "")}, "nats")
        >>> (folder / "nats.png").exists()
        True
    """

    bins = check_count("bins", bins, at_least=1, at_most=BINS)
    figures.titled("groups", groups)
    figure, [axis] = figures.figure(1, 1, (6.0, 3.4))
    known = {
        name: as_floats(name, values).flatten().cpu().numpy()
        for name, (values, _) in groups.items()
    }
    every = np.concatenate(list(known.values()))
    edges = np.linspace(every.min(), every.max(), bins + 1)
    for name, (_, words) in groups.items():
        axis.hist(known[name], edges.tolist(), alpha=0.6, label=f"{name}: {words}")
    axis.set_xlabel(label)
    axis.set_ylabel("samples")
    figures.legend(axis)
    figures.write(figure, Path(file))


@checked
def bars(file: str | Path, values: Mapping[str, float], label: str) -> None:
    r"""Draws numbers as bars on a logarithmic axis, the largest on top.

    Arguments:
        file: The file to write.
        values: Names and positive numbers.
        label: The label of the axis.

    Examples:
        >>> ss.plots.bars(folder / "bars.png", {"ddim": 0.1, "heun": 0.01}, "error")
        >>> (folder / "bars.png").exists()
        True
    """

    figures.titled("values", values)
    figure, [axis] = figures.figure(1, 1, (6.0, 0.4 * len(values) + 1.0))
    ranked = sorted(values.items(), key=lambda entry: entry[1])
    found = axis.barh([name for name, _ in ranked], [value for _, value in ranked])
    axis.bar_label(found, [f"{value:.2g}" for _, value in ranked], padding=3)
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.set_xlabel(label)
    figures.write(figure, Path(file))


@checked
def curves(
    file: str | Path,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
) -> None:
    r"""Draws curves on logarithmic axes.

    Arguments:
        file: The file to write.
        lines: The name and the points of each curve.
        x_label: The label of the horizontal axis.
        y_label: The label of the vertical axis.

    Examples:
        >>> ss.plots.curves(folder / "curves.png", {"ddim": [(5, 0.1), (10, 0.05)]}, "calls", "error")
        >>> (folder / "curves.png").exists()
        True
    """

    figure, [axis] = figures.figure(1, 1, (7.0, 4.6))
    for i, (name, points) in enumerate(lines.items()):
        xs, ys = zip(*points, strict=True)
        axis.loglog(xs, ys, "-" if i < 10 else "--", linewidth=1, label=name, **_marked(i))
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3, linewidth=0.5)
    figures.legend(axis, below=False)
    figures.write(figure, Path(file))


@checked
def work_precision(
    file: str | Path,
    lines: Mapping[str, Sequence[tuple[float, float, float]]],
    front: Sequence[tuple[float, float]],
    label: str,
    base: float | None = None,
) -> None:
    r"""Draws error against network calls on logarithmic axes, and marks the best at each cost.

    Each curve has its colour and marker, in the order of the last errors. Curves that are best somewhere have
    thick lines and filled markers; the others are dashed with hollow markers. Distances may be negative: if some
    are, or are within a standard error of zero, the axis is linear near zero, and its label says so.

    Arguments:
        file: The file to write.
        lines: The name and the points of each curve: calls, error, and its standard error.
        front: The points that no other beats at the same number of calls or fewer.
        label: The label of the vertical axis.
        base: The value of the exact flow, drawn as a line.

    Examples:
        >>> points = [(5, 0.1, 0.01), (10, 0.05, 0.01)]
        >>> ss.plots.work_precision(folder / "work.png", {"ddim": points}, [(5, 0.1), (10, 0.05)], "error")
        >>> (folder / "work.png").exists()
        True
    """

    figures.titled("lines", lines)
    check_several("front", front)
    figure, [axis] = figures.figure(1, 1, (7.0, 4.6))
    best = set(map(tuple, front))
    axis.plot(*zip(*front, strict=True), color="0.8", linewidth=6, zorder=0, label="best")
    if base is not None:
        axis.axhline(base, color="black", linewidth=0.8, linestyle=":", label="exact flow")
    for i, (name, points) in enumerate(sorted(lines.items(), key=lambda line: line[1][-1][1])):
        good = any((calls, error) in best for calls, error, _ in points)
        calls, errors, spread = zip(*points, strict=True)
        axis.errorbar(
            calls, errors, spread if any(spread) else None, fmt="-" if good else "--",
            elinewidth=0.6, linewidth=1.6 if good else 0.8, zorder=3 if good else 2,
            label=name, **_marked(i, hollow=not good),
        )  # fmt: skip
    axis.set_xscale("log")
    near = _threshold([point for points in lines.values() for point in points], base)
    if near is None:
        axis.set_yscale("log")
    else:
        axis.set_yscale("symlog", linthresh=near)
        label = f"{label}\nlinear from {-near:.2g} to {near:.2g}, logarithmic beyond"
    axis.set_xlabel("network calls per sample")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3, linewidth=0.5)
    figures.legend(axis, below=False)
    figures.write(figure, Path(file))


def _threshold(points: Sequence[tuple[float, float, float]], base: float | None) -> float | None:
    r"""The size below which an axis is linear: the median standard error, if a point is within its own of zero."""

    lowest = min(error - spread for _, error, spread in points)
    spreads = sorted(spread for _, _, spread in points if spread)
    if (lowest > 0 and (base is None or base > 0)) or not spreads:
        return None
    return spreads[len(spreads) // 2]


def _marked(i: int, *, hollow: bool = False) -> dict[str, Any]:
    r"""The colour and marker of a curve; sizes differ, too, so that overlapping markers are both visible."""

    import matplotlib

    colour = matplotlib.colormaps["tab10"](i % 10)
    size = MARKER_SIZES[i % len(MARKER_SIZES)]
    return {
        "color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": size,
        "markerfacecolor": "none" if hollow else colour,
    }  # fmt: skip
