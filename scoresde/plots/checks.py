r"""Errors and losses by noise level: the pictures of a check and of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from solvers.doors.signatures import checked

from . import figures

Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
MARKERS = "osv^D"


@checked
def errors(file: str | Path, lines: Curves) -> None:
    r"""Draws errors of denoised data by noise level, with a line at 1, the best linear denoiser.

    Arguments:
        file: The file to write.
        lines: Names, and points of each curve: noise level, and error against the linear denoiser's.

    Examples:
        >>> ss.plots.errors(folder / "errors.png", {"model": [(0.2, 0.4), (2.0, 0.8)]})
        >>> (folder / "errors.png").exists()
        True
    """

    figure, axis = _curves(lines, "squared error / linear denoiser's")
    axis.set_yscale("log")
    axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":", label="best linear denoiser")
    figures.legend(axis)
    figures.write(figure, Path(file))


@checked
def losses(file: str | Path, lines: Curves) -> None:
    r"""Draws losses by noise level, on a logarithmic axis of noise.

    Arguments:
        file: The file to write.
        lines: Names, such as steps, and points of each curve: noise level, and loss.

    Examples:
        >>> ss.plots.losses(folder / "losses.png", {"step 100": [(0.1, 0.9), (1.0, 0.5), (8.0, 0.6)]})
        >>> (folder / "losses.png").exists()
        True
    """

    figure, axis = _curves(lines, "loss on held-out data")
    figures.legend(axis)
    figures.write(figure, Path(file))


def _curves(lines: Curves, label: str) -> tuple[Any, Any]:
    r"""A figure of named curves by noise level, without its legend, and its axis."""

    figures.titled("lines", lines)
    figure, [axis] = figures.figure(1, 1, (6.0, 3.4))
    for i, (name, points) in enumerate(lines.items()):
        if points:
            xs, ys = zip(*points, strict=True)
            axis.semilogx(xs, ys, marker=MARKERS[i % len(MARKERS)], linewidth=1.2, label=name)
    axis.set_xlabel("noise level")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3, linewidth=0.5)
    return figure, axis
