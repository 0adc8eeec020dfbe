r"""Figures: made in one style, written whole."""

from pathlib import Path
from typing import Any

import numpy as np

PICTURES = (".png", ".pdf", ".svg")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    r"""Returns a figure, and its axes by rows; the size is that of one, in inches."""

    pyplot = _pyplot()
    with pyplot.rc_context(STYLE):
        made, axes = pyplot.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False
        )
    return made, list(axes.flat)


def check_picture(file: Path, others: tuple[str, ...] = ()) -> None:
    r"""Refuses a file whose ending is that of no picture, nor of others."""

    endings = (*PICTURES, *others)
    if file.suffix not in endings:
        raise ValueError(f"{file} must end in one of {', '.join(endings)}, not {file.suffix!r}.")


def blank(size: tuple[float, float]) -> Any:
    r"""Returns a figure without axes, of some size in inches."""

    pyplot = _pyplot()
    with pyplot.rc_context(STYLE):
        return pyplot.figure(figsize=size)


def pixels(made: Any) -> np.ndarray:
    r"""Returns the picture of a figure, with shape (H, W, 3), and closes it."""

    made.set_dpi(100)
    made.canvas.draw()
    picture = np.asarray(made.canvas.buffer_rgba())[..., :3].copy()
    _pyplot().close(made)
    return picture


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'scoresde[plots]'.") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def write(made: Any, file: Path) -> None:
    r"""Writes a figure, and closes it."""

    file.parent.mkdir(parents=True, exist_ok=True)
    if len(made.axes) and made.axes[0].get_subplotspec() is not None:
        made.tight_layout()
    made.savefig(file, dpi=130, bbox_inches="tight")
    _pyplot().close(made)
