r"""Figures in one style, which are written whole and use no pyplot state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from solvers.doors.signatures import checked

from .ticks import label_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 100  # groups in a row, at most
PICTURES = (".png", ".pdf", ".svg")
LIBRARIES = ("matplotlib", "PIL", "jinja2")  # of the extra "plots"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
TURN = RLock()  # of the thread that draws


def figure(
    rows: int, columns: int, size: tuple[float, float], projection: str | None = None
) -> tuple["Figure", list["Axes"]]:
    r"""Returns a figure and its axes by rows; the size is that of one axis, in inches."""

    made = blank((size[0] * columns, size[1] * rows))
    with styled():
        kind = {"projection": projection}
        axes = made.subplots(rows, columns, squeeze=False, subplot_kw=kind)
    return made, list(axes.flat)


def titled(name: str, groups: object) -> Mapping[str, object]:
    r"""Returns groups by their titles; a single group has no title."""

    named = groups if isinstance(groups, Mapping) else {"": groups}
    if not named:
        raise ValueError(f"{name} must hold at least one entry, but is empty.")
    return named


@checked
def check_picture(file: Path, others: tuple[str, ...] = ()) -> None:
    r"""Raises a `ValueError` for a file whose suffix is neither that of a picture nor one of `others`.

    Arguments:
        file: The file to write.
        others: Further suffixes that are allowed, each with its dot.

    Examples:
        >>> ss.plots.check_picture(type(folder)("samples.txt"), others=(".html",))
        Traceback (most recent call last):
        ValueError: samples.txt must end in one of .png, .pdf, .svg, .html, not '.txt'.
    """

    endings = (*PICTURES, *others)
    if file.suffix not in endings:
        raise ValueError(f"{file} must end in one of {', '.join(endings)}, not {file.suffix!r}.")


def check_libraries() -> None:
    r"""Refuses to draw without the libraries for pictures and reports."""

    for name in LIBRARIES:
        if find_spec(name) is None:
            raise ImportError(f"pictures and reports need {name}: pip install 'scoresde[plots]'.")


def blank(size: tuple[float, float]) -> "Figure":
    r"""Returns a figure without axes, with a size in inches, which no window will show."""

    with styled():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        made = Figure(figsize=size)
        FigureCanvasAgg(made)
    return made


def legend(axis: "Axes", *, below: bool = True) -> None:
    r"""Adds the legend of an axis beside or below it, where it covers no curve."""

    place = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.2)}
    if not below:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axis.legend(frameon=False, fontsize=7, **place)


def line(axis: "Axes", points: Tensor, **style: Any) -> None:
    r"""Draws a line through points, with shape (n, 2) or (n, 3), styled by matplotlib's own keywords."""

    axis.plot(*points.T.tolist(), **style)


def dots(axis: "Axes", points: Tensor, **style: Any) -> None:
    r"""Draws points, with shape (n, 2) or (n, 3), styled by matplotlib's own keywords."""

    axis.scatter(*points.T.tolist(), **style)


def pixels(made: "Figure") -> np.ndarray:
    r"""Returns the picture of a figure, with shape (H, W, 3)."""

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    made.set_dpi(100)
    canvas = FigureCanvasAgg(made)
    with styled():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write(made: "Figure", file: Path) -> None:
    r"""Writes a figure, with labels on every logarithmic axis."""

    file.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        for axes in made.axes:
            label_axis(axes.xaxis)
            label_axis(axes.yaxis)
        if len(made.axes) and made.axes[0].get_subplotspec() is not None:
            _lay_out(made)
        made.savefig(file, dpi=130, bbox_inches="tight")


def _lay_out(made: "Figure") -> None:
    r"""Gives axes the room that their numbers need. Legends take no room from them: the picture grows."""

    legends = [beside for axes in made.axes if (beside := axes.get_legend()) is not None]
    for beside in legends:
        beside.set_in_layout(False)
    made.tight_layout()
    for beside in legends:
        beside.set_in_layout(True)


@contextmanager
def styled() -> Iterator[None]:
    r"""Applies our matplotlib style in its block, one thread at a time, and restores the user's."""

    check_libraries()
    import matplotlib

    with TURN, matplotlib.rc_context(STYLE):
        yield
