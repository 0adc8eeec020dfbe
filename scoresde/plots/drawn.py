r"""Samples of any data that can be drawn, each kind in its own way."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..doors.data import Samples, as_data
from ..models.checks import check_count
from . import figures
from .bands import CHANNELS, bands
from .charts import histogram
from .pictures import images
from .points import scatter

Draw = Callable[[Path, dict[str, Tensor], int | None], None]
KINDS = (
    "one number, points with two or three entries, vectors (n,), series (c, n) of at most "
    f"{CHANNELS} channels, or images (1, H, W) or (3, H, W)"
)


@checked
def samples(
    file: str | Path, groups: Mapping[str, Samples] | Samples, *, across: int | None = None
) -> None:
    r"""Draws groups of samples in the way that fits their shape, each under its title.

    Samples of one entry become histograms; of two or three entries, points; other vectors and series (c, n) with
    n > 1, curves of the median with bands between quantiles; images (1, H, W) or (3, H, W) on [-1, 1], tiles.

    Arguments:
        file: The file to write.
        groups: Titles, and samples with shape (B, \*), or solutions that ended in data; or one of them alone.
        across: The number of groups in a row.

    Raises:
        ValueError: If data of this shape cannot be drawn, or groups differ in the shape of a sample.

    Examples:
        >>> ss.plots.samples(folder / "series.png", {"noise": torch.randn(50, 1, 20)})
        >>> ss.plots.samples(folder / "points.png", ss.sample(model, 9, steps=3))
        >>> (folder / "series.png").exists(), (folder / "points.png").exists()
        (True, True)
    """

    figures.check_picture(Path(file))
    across = check_count("across", across, at_least=1, at_most=figures.ACROSS)
    named = figures.titled("groups", groups)
    known = {title: as_data(title or "groups", x).detach().cpu() for title, x in named.items()}
    shapes = {tuple(x.shape[1:]) for x in known.values()}
    if len(shapes) > 1:
        words = ", ".join(map(str, sorted(shapes)))
        raise ValueError(f"groups must have samples of the same shape, but have {words}.")
    draw = drawing_of(shapes.pop())
    draw(Path(file), known, across)


def drawing_of(shape: tuple[int, ...]) -> Draw:
    r"""Returns the function that draws samples of a shape.

    Raises:
        ValueError: If samples of this shape cannot be drawn.
    """

    for fits, draw in (
        (shape == (1,), _numbers),
        (shape in ((2,), (3,)), lambda file, groups, across: scatter(file, groups, across=across)),
        (len(shape) == 1 or (len(shape) == 2 and shape[0] <= CHANNELS), _curves),
        (len(shape) == 3 and shape[0] in (1, 3), _tiles),
    ):
        if fits:
            return draw
    raise ValueError(
        f"samples of shape {shape} cannot be drawn, only {KINDS}; reshape them, or choose channels."
    )


def _numbers(file: Path, groups: dict[str, Tensor], across: int | None) -> None:
    known = {
        title or "samples": (x[:, 0], f"mean {x.mean():.3g}, deviation {x.std(correction=0):.3g}")
        for title, x in groups.items()
    }
    histogram(file, known, "value")


def _curves(file: Path, groups: dict[str, Tensor], across: int | None) -> None:
    curves = {title: torch.atleast_3d(x.double()) for title, x in groups.items()}
    curves = {
        title: x.transpose(1, 2) if groups[title].ndim == 2 else x for title, x in curves.items()
    }
    figures.write(bands(curves, across), file)


def _tiles(file: Path, groups: dict[str, Tensor], across: int | None) -> None:
    images(file, groups, across=across or min(3, len(groups)))
