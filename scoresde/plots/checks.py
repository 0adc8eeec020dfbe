r"""Errors and losses by noise level: the pictures of a check and of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from solvers.doors.signatures import checked

from . import figures

MARKERS = "osv^D"


@checked
def errors(file: str | Path, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    r"""Draws errors of denoised data by noise level, with a line at 1, the best linear denoiser.

    Arguments:
        file: The file to write.
        lines: Names, and points of each curve: noise level, and error against the linear denoiser's.

    Examples:
        >>> ss.plots.errors(folder / "errors.png", {"model": [(0.2, 0.4), (2.0, 0.8)]})
        >>> (folder / "errors.png").exists()
        True
    """

    figures.titled("lines", lines)
    figure, [axis] = figures.figure(1, 1, (6.0, 3.4))
    axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":", label="best linear denoiser")
    for i, (name, points) in enumerate(lines.items()):
        if points:
            xs, ys = zip(*points, strict=True)
            axis.loglog(xs, ys, marker=MARKERS[i % len(MARKERS)], linewidth=1.2, label=name)
    axis.set_xlabel("noise level")
    axis.set_ylabel("squared error / linear denoiser's")
    axis.grid(alpha=0.3, linewidth=0.5)
    figures.legend(axis)
    figures.write(figure, Path(file))


@checked
def losses(file: str | Path, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    r"""Draws losses by noise level, on a logarithmic axis of noise.

    Arguments:
        file: The file to write.
        lines: Names, such as steps, and points of each curve: noise level, and loss.

    Examples:
        >>> ss.plots.losses(folder / "losses.png", {"step 100": [(0.1, 0.9), (1.0, 0.5), (8.0, 0.6)]})
        >>> (folder / "losses.png").exists()
        True
    """

    figures.titled("lines", lines)
    figure, [axis] = figures.figure(1, 1, (6.0, 3.4))
    for i, (name, points) in enumerate(lines.items()):
        if points:
            xs, ys = zip(*points, strict=True)
            axis.semilogx(xs, ys, marker=MARKERS[i % len(MARKERS)], linewidth=1.2, label=name)
    axis.set_xlabel("noise level")
    axis.set_ylabel("loss on held-out data")
    axis.grid(alpha=0.3, linewidth=0.5)
    figures.legend(axis)
    figures.write(figure, Path(file))
