r"""Charts: curves, bars and histograms."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..data import as_floats
from . import figures


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

    figure, [axis] = figures.figure(1, 1, (6.0, 3.4))
    known = {
        name: as_floats(name, values).flatten().cpu().numpy()
        for name, (values, _) in groups.items()
    }
    every = np.concatenate(list(known.values()))
    edges = np.linspace(every.min(), every.max(), bins + 1)
    for name, (_, words) in groups.items():
        axis.hist(known[name], edges, alpha=0.6, label=f"{name}: {words}")
    axis.set_xlabel(label)
    axis.set_ylabel("images")
    axis.legend(frameon=False)
    figures.write(figure, file)


def bars(file: Path, values: Mapping[str, float], label: str) -> None:
    r"""Draws numbers as bars on a logarithmic axis, the largest on top.

    Arguments:
        file: The file to write.
        values: Names, and positive numbers.
        label: What the numbers are.
    """

    figure, [axis] = figures.figure(1, 1, (6.0, 0.4 * len(values) + 1.0))
    ranked = sorted(values.items(), key=lambda entry: entry[1])
    found = axis.barh([name for name, _ in ranked], [value for _, value in ranked])
    axis.bar_label(found, [f"{value:.2g}" for _, value in ranked], padding=3)
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.set_xlabel(label)
    figures.write(figure, file)


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

    figure, [axis] = figures.figure(1, 1, (7.0, 4.6))
    markers = "osv^D<>pPX*hd"
    for i, (name, points) in enumerate(lines.items()):
        xs, ys = zip(*points, strict=True)
        line, marker = "-" if i < 10 else "--", markers[i % len(markers)]
        axis.loglog(xs, ys, line, marker=marker, markersize=4, linewidth=1, label=name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figures.write(figure, file)


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

    figure, [axis] = figures.figure(1, 1, (7.0, 4.6))
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
    figures.write(figure, file)


def _plain_numbers(axis: Any) -> None:
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.ScalarFormatter())
    axis.set_minor_formatter(ticker.NullFormatter())


def _colours() -> Sequence[Any]:
    import matplotlib

    return matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
