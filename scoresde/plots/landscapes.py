r"""Steps and paths of guided sampling, drawn in the plane of the data, or in one that states what it hides."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..geometry import Density, Plane, Trajectory
from ..models.checks import check_count, check_finite
from . import figures
from .backdrop import limits, shade, thumbnails
from .movie import write_gif, write_page
from .views import COLOURS, View, path_view, step_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATE, NOISE, FAINT = "black", "tab:orange", "0.6"
SIZE = (7.5, 6.0)
MOVIES = (".gif", ".html")
ENTRIES = ("first entry", "second entry", "third entry")


@checked
def geometry(
    file: str | Path,
    trajectory: Trajectory,
    *,
    sample: int = 0,
    step: int | None = None,
    dimensions: int = 2,
    highest: float | None = None,
    density: Density | None = None,
    seconds: float = 6.0,
) -> Plane:
    r"""Draws a step, or the whole path, of a sample: noisy points, estimates, their difference, and guidance.

    Two-dimensional data is drawn in its own plane, with its noisy density behind it. Other data is drawn in the
    plane that is spanned by the way to the estimate and the push of guidance, or that shows most of the path;
    distances are true to scale, and the legend states the hidden fraction of each arrow's squared length. An
    animation of many dimensions uses a different plane and scale for each step.

    Arguments:
        file: The file to write: a picture, or, to show the path step by step, a .gif or an .html with a slider.
        trajectory: The trajectory of :func:`scoresde.geometry.follow`.
        sample: The index of the sample.
        step: The index of the step, from 0. By default, the whole path is drawn.
        dimensions: 2, or 3 for a three-dimensional view.
        highest: The noise level from which the path is drawn. By default, 4 root mean squares of the data in 2
            or 3 dimensions, and 1.5 in more; animations of more dimensions then show all steps.
        density: The log-density behind two-dimensional data, as a function of points in units of the data, with
            shape (n, 2), and a noise level. By default, that of the model, if it is known.
        seconds: The duration of an animation.

    Returns:
        The plane.

    Raises:
        ValueError: If there is no such sample or step.

    Examples:
        >>> way = ss.geometry.follow(model, 2, steps=3)
        >>> ss.plots.geometry(folder / "way.png", way).basis.shape
        torch.Size([2, 2])
    """

    _check(trajectory, sample, step, file)
    file = Path(file)
    seconds = check_finite("seconds", seconds)
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, but is {seconds}.")
    view = path_view(trajectory, sample, dimensions, highest, density)
    if file.suffix in MOVIES:
        pictures = _pictures(view, dimensions, whole=highest is None)
        if file.suffix == ".gif":
            write_gif(file, pictures, seconds)
        else:
            write_page(file, pictures, seconds, "One sample, step by step")
        return view.plane
    view = view if step is None else step_view(view, step, dimensions)
    figure = _figure(view)
    if step is None:
        _draw_way(figure, view)
    else:
        _draw_step(figure, view, step, view.box([step]))
    figures.write(figure, file)
    return view.plane


def _pictures(view: View, dimensions: int, whole: bool) -> list[np.ndarray]:
    r"""A picture of each step, in one plane and on one scale if there are few dimensions.

    In many dimensions, one plane would hide nearly all of guidance; with separate planes and scales, all steps
    are visible.
    """

    last = len(view.trajectory.states) - 1
    if view.few:
        every = range(view.first, last)
        return [_frame(view, i, view.box(every), trail=True) for i in every]
    every = range(0 if whole else view.first, last)
    views = [step_view(view, i, dimensions) for i in every]
    return [_frame(own, i, own.box([i])) for own, i in zip(views, every, strict=True)]


def _draw_step(figure: "Figure", view: View, i: int, box: Tensor, trail: bool = False) -> None:
    trajectory, axis = view.trajectory, figure.axes[0]
    states = view.points(trajectory.states)
    here, after = states[i], states[i + 1]
    if trail:
        figures.line(axis, states[view.first : i + 1], color=FAINT, linewidth=1, marker=".")
    _arrows(axis, view, i)
    for name, colour in view.colours.items():
        at = view.points(trajectory.estimates[name])[i]
        figures.line(axis, torch.stack([here, at]), color=colour, linewidth=0.8, linestyle=":")
        figures.dots(axis, at[None], color=colour, s=45, zorder=5, label=f"{name} estimate")
    figures.dots(axis, here[None], color=STATE, s=45, zorder=6, label="noisy point")
    figures.dots(
        axis, after[None], facecolor="white", edgecolor=STATE, s=45, zorder=6, label="next point"
    )
    levels = trajectory.levels.tolist()
    axis.set_title(
        f"step {i} of 0 to {len(levels) - 2}: noise level {levels[i]:.3g} to {levels[i + 1]:.3g}"
    )
    _finish(figure, view, box, levels[i])
    thumbnails(figure, trajectory, view.sample, i, view.colours)


def _arrows(axis: "Axes", view: View, i: int) -> None:
    r"""The difference, the push of guidance, the step, and its noise."""

    trajectory, b = view.trajectory, view.sample
    points = {name: view.points(e)[i] for name, e in trajectory.estimates.items()}
    start, end = view.points(trajectory.states)[i], view.points(trajectory.states)[i + 1]
    guided, mean = points[next(iter(points))], end
    base, other = trajectory.base, trajectory.other
    if trajectory.difference is not None and base is not None and other is not None:
        words = view.words("difference", trajectory.difference[i, b])
        _arrow(axis, points[other], points[base], COLOURS[2], words)
    if trajectory.push is not None and base is not None:
        words = view.words("what guidance adds", trajectory.push[i, b])
        _arrow(axis, points[base], guided, COLOURS[0], words)
    if trajectory.means is not None and trajectory.noise is not None:
        mean = view.points(trajectory.means)[i]
    _arrow(
        axis,
        start,
        mean,
        STATE,
        view.words("step and its noise" if trajectory.means is None else "step", view.step(i)),
    )
    if trajectory.noise is not None and bool(trajectory.noise[i, b].abs().max() > 0):
        _arrow(axis, mean, end, NOISE, view.words("fresh noise", trajectory.noise[i, b]))


def _draw_way(figure: "Figure", view: View) -> None:
    trajectory, axis = view.trajectory, figure.axes[0]
    first, states = view.first, view.points(view.trajectory.states)
    for name, colour in reversed(view.colours.items()):
        at = view.points(trajectory.estimates[name])[first:]
        figures.line(
            axis,
            at,
            color=colour,
            linewidth=1.2,
            marker="o",
            markersize=3,
            label=f"{name} estimates",
        )
        if name == next(iter(trajectory.estimates)):
            for pair in zip(states[first:], at, strict=True):
                figures.line(axis, torch.stack(pair), color=FAINT, linewidth=0.5)
    steps = trajectory.states[1:, view.sample] - trajectory.states[:-1, view.sample]
    shares = view.plane.hidden(steps[first:])
    hidden = f" ({100 * float(shares.mean()):.0f} % of a step hidden)"
    words = "states" if view.whole else f"states{hidden}"
    figures.line(
        axis, states[first:], color=STATE, linewidth=1.5, marker="o", markersize=4, label=words
    )
    figures.dots(
        axis,
        states[-1:],
        marker="*",
        color="gold",
        edgecolor=STATE,
        s=160,
        zorder=7,
        label="end",
    )
    levels = trajectory.levels.tolist()
    axis.set_title(f"{len(levels) - 1 - first} steps from the noise level {levels[first]:.3g} on")
    _finish(figure, view, view.box(range(first, len(levels))), levels[-1])
    thumbnails(figure, trajectory, view.sample, len(levels) - 1, view.colours)


def _frame(view: View, i: int, box: Tensor, trail: bool = False) -> np.ndarray:
    figure = _figure(view)
    _draw_step(figure, view, i, box, trail)
    return figures.pixels(figure)


def _figure(view: View) -> "Figure":
    r"""A figure with one axis, in two or three dimensions."""

    flat = len(view.plane.basis) == 2
    figure = figures.blank(SIZE)
    figure.add_axes((0.1, 0.1, 0.55, 0.8), projection=None if flat else "3d")
    return figure


def _finish(figure: "Figure", view: View, box: Tensor, level: float) -> None:
    axis, flat = figure.axes[0], len(view.plane.basis) == 2
    limits(axis, box)
    if view.density is not None and flat:
        shade(axis, view.density, box, level, float(view.trajectory.levels[-1]))
    names = ENTRIES if view.whole else view.labels
    axis.set_xlabel(names[0])
    axis.set_ylabel(names[1])
    if not flat:
        axis.set(zlabel=names[2])
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left",
                  bbox_to_anchor=(0.66, 0.9))  # fmt: skip


def _arrow(axis: "Axes", start: Tensor, end: Tensor, colour: str, words: str) -> None:
    if len(start) == 3:
        axis.quiver(
            *start.tolist(), *(end - start).tolist(), color=colour, label=words, linewidth=1.5
        )
        return
    axis.quiver(*start.tolist(), *(end - start).tolist(), color=colour, label=words, angles="xy",
                scale_units="xy", scale=1, width=0.006, zorder=4)  # fmt: skip


def _check(trajectory: Trajectory, sample: int, step: int | None, file: str | Path) -> None:
    if not isinstance(file, str | Path):
        raise TypeError(f"file must be a path, but is a {type(file).__name__}; it comes first.")
    figures.check_picture(Path(file), MOVIES)
    if not isinstance(trajectory, Trajectory):
        kind = type(trajectory).__name__
        raise TypeError(
            f"trajectory must be the result of ss.geometry.follow(model, ...), not a {kind}."
        )
    steps, count = len(trajectory.states) - 1, trajectory.states.shape[1]
    for name, value, size in (("sample", sample, count), ("step", step, steps)):
        check_count(name, value, at_least=None)
        if value is not None and not 0 <= value < size:
            raise ValueError(f"{name} must lie in [0, {size - 1}], but is {value}.")
    if step is not None and Path(file).suffix in MOVIES:
        raise ValueError(
            f"an animation shows many steps; leave out step=, or write a picture, not {str(file)!r}."
        )
