r"""Samples of two or three dimensions as points."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor

from ..models.checks import check_count
from . import figures
from .backdrop import limits, square

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSIDE = 0.995  # the quantile q of each entry: pictures always show the range from q to 1 - q
SIZE = (3.2, 3.4)
FULL = 200  # points that are drawn large and dark; more points are smaller and fainter


@checked
def scatter(
    file: str | Path,
    groups: Mapping[str, Tensor] | Tensor,
    *,
    behind: Tensor | None = None,
    across: int | None = None,
) -> None:
    r"""Draws groups of samples as points, each under its title, on a common scale.

    The scale shows most groups; a title states how many points of its group lie outside.

    Arguments:
        file: The file to write.
        groups: Titles, and samples with shape (B, 2) or (B, 3); or samples alone.
        behind: Samples to draw in grey behind each group, such as data.
        across: The number of groups in a row. By default, at most four.

    Raises:
        ValueError: If samples have neither two nor three entries, or groups differ in their number.

    Examples:
        >>> ss.plots.scatter(folder / "points.png", {"samples": ss.sample(model, 9, steps=3).x})
        >>> (folder / "points.png").exists()
        True
    """

    figures.check_picture(Path(file))
    named = figures.titled("groups", groups)
    points = {title: _checked(title or "groups", x) for title, x in named.items()}
    grey = None if behind is None else _checked("behind", behind)
    across = check_count("across", across, at_least=1, at_most=figures.ACROSS)
    every = [*points.values(), *([] if grey is None else [grey])]
    if len({x.shape[1] for x in every}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in every)
        raise ValueError(
            f"a scatter is of groups, and what is behind, with as many entries each, not {shapes}."
        )
    box = _box(every)
    across = across or min(4, len(points))
    down = math.ceil(len(points) / across)
    flat = len(box[0]) == 2
    figure, axes = figures.figure(down, across, SIZE, None if flat else "3d")
    for axis, (title, x) in zip(axes, points.items(), strict=False):
        if grey is not None:
            _draw(axis, grey, box, "0.75")
        outside = len(x) - _draw(axis, x, box, "tab:blue")
        axis.set_title(
            "\n".join(filter(None, (title, f"{outside} outside" * bool(outside)))), fontsize=9
        )
        limits(axis, box)
    for axis in axes[len(points) :]:
        axis.set_axis_off()
    figures.write(figure, Path(file))


def _checked(name: str, value: object) -> Tensor:
    x = as_tensor(name, value)
    if x.ndim != 2 or x.shape[1] not in (2, 3) or not len(x):
        raise ValueError(
            f"a scatter is of samples with shape (B, 2) or (B, 3), but {name} has {tuple(x.shape)}; plots.images "
            "draws images, plots.histogram numbers."
        )
    return x.detach().cpu().double()


def _box(groups: list[Tensor]) -> Tensor:
    r"""The corners of the shown box, (2, d): medians over groups, so that no outlying group hides the others."""

    corners = []
    for x in groups:
        known = x[x.isfinite().all(1)]
        if len(known):
            corners.append(torch.stack([known.quantile(1 - INSIDE, 0), known.quantile(INSIDE, 0)]))
    if not corners:
        return torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, groups[0].shape[1])
    return torch.stack(corners).median(0).values


def _draw(axis: "Axes", x: Tensor, box: Tensor, colour: str) -> int:
    r"""Draws the points inside a box, and returns their number."""

    low, high = square(box)
    near = ((x >= low) & (x <= high)).all(1)
    fewer = min(1.0, (FULL / max(1, len(x))) ** 0.5)
    figures.dots(axis, x[near], color=colour, s=4 + 10 * fewer, alpha=0.3 + 0.4 * fewer,
                 linewidths=0)  # fmt: skip
    return int(near.sum())
