r"""Maps of log-densities: a picture of a model in two dimensions, a curve in one."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.doors.values import Array, as_tensor

from ..doors.data import as_data
from ..likelihood import Likelihood, log_likelihood
from ..models.checks import check_count
from ..models.conditions import Condition, verb
from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from ..runs.options import Failures, Limits, Start
from ..runs.takes import Takes, check_model
from . import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP = Takes("a density map", "rtol", "atol", Limits, Start)
SIDE = {1: 256, 2: 64}  # points along each axis
WIDE = 3.0  # standard deviations of the data to each side of its mean
FALL = 12.0  # nats below the maximum, where the colours end
SIZE = (5.4, 4.4)


@verb(in_data=True)
def density(  # noqa: D417
    file: str | Path,
    model: ScoreModel,
    *,
    box: Array | None = None,
    over: Array | None = None,
    side: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Likelihood:
    r"""Draws the log-density of a model of one or two dimensions over a box, by :func:`scoresde.log_likelihood`.

    Colours range from the maximum to 12 nats below it.

    Arguments:
        file: The file to write.
        model: The score model, of data with shape (B, 1) or (B, 2).
        box: The lowest and the highest corner, with shape (2, d). By default, 3 standard deviations of the data
            to each side of its mean.
        over: Samples to draw over the map, with shape (B, d), such as data or modes.
        side: The number of points along each axis. By default, 64 in two dimensions and 256 in one.
        condition: The conditions of the model, one value for all points. The options are those of
            :func:`scoresde.log_likelihood` that matter here.

    Returns:
        The log-density of the points of the grid, whose last entry varies fastest.

    Raises:
        ValueError, TypeError: If the model, the box or the samples do not have one or two entries, or an option
            or condition is invalid.

    Examples:
        >>> ss.plots.density(folder / "map.png", model, side=8, over=model.data(20)).nats.shape
        torch.Size([64])
    """

    options = MAP.said(locals())
    figures.check_picture(Path(file))
    figures.check_libraries()
    check_model(model)
    side = check_count("side", side, at_least=2)
    corners, points = _box(model, box, over), None if over is None else as_data("over", over)
    d = corners.shape[1]
    if points is not None and points.shape[1:] != (d,):
        raise ValueError(
            f"over must hold samples with shape (B, {d}), but has {tuple(points.shape)}."
        )
    count = side or SIDE[d]
    axes = [torch.linspace(float(a), float(b), count, dtype=torch.float64) for a, b in corners.T]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
    found = log_likelihood(model, grid, **options)
    draw = _draw_curve if d == 1 else _draw_map
    figures.write(draw(found.nats.cpu(), axes, points), Path(file))
    return found


def _box(model: ScoreModel, box: Array | None, over: Array | None) -> Tensor:
    r"""The corners, with shape (2, d), from the argument or from what is known of the data."""

    if box is not None:
        corners = as_tensor("box", box).double().cpu()
        ends = corners.ndim == 2 and len(corners) == 2 and bool((corners[0] < corners[1]).all())
        if not ends or corners.shape[1] not in SIDE or not bool(corners.isfinite().all()):
            raise ValueError(
                "box must be two finite corners, the lower first, with shape (2, 1) or (2, 2), but is "
                f"{corners.tolist()}."
            )
        return corners
    shape = model.shape or (None if over is None else tuple(as_tensor("over", over).shape[1:]))
    if shape not in ((1,), (2,)):
        known = "not known" if shape is None else str(shape)
        raise ValueError(
            "a density map is of a model of data with shape (1,) or (2,), but this one's is "
            f"{known}; pass box= with shape (2, d), or draw scatter or images of samples."
        )
    mean, std = torch.zeros(shape).double(), torch.full(shape, scale_of(model)).double()
    if model.moments is not None:
        mean = model.moments.mean.double().cpu()
        std = model.moments.variances.double().cpu().sqrt().max().expand(shape)
    corners = torch.stack([mean - WIDE * std, mean + WIDE * std])
    return corners if model.transform is None else model.transform.outside(corners)


def _draw_map(nats: Tensor, axes: list[Tensor], points: Tensor | None) -> "Figure":
    across, up = axes
    made, [axis] = figures.figure(1, 1, SIZE)
    top = nats.nan_to_num(-torch.inf).max().item()
    mesh = axis.pcolormesh(
        across.numpy(), up.numpy(), nats.reshape(len(across), len(up)).T.numpy(), shading="gouraud",
        cmap="viridis", vmin=max(top - FALL, nats.nan_to_num(torch.inf).min().item()), vmax=top,
        rasterized=True,
    )  # fmt: skip
    made.colorbar(mesh, ax=axis, label="log-density (nats)")
    if points is not None:
        figures.dots(
            axis, points.cpu().double(), color="white", edgecolor="black", s=12, linewidths=0.4
        )
    axis.set_xlim(across[0].item(), across[-1].item())
    axis.set_ylim(up[0].item(), up[-1].item())
    axis.set_aspect("equal")
    axis.set_xlabel("first entry")
    axis.set_ylabel("second entry")
    return made


def _draw_curve(nats: Tensor, axes: list[Tensor], points: Tensor | None) -> "Figure":
    made, [axis] = figures.figure(1, 1, SIZE)
    figures.line(axis, torch.stack([axes[0], nats], 1), color="tab:blue")
    top = nats.nan_to_num(-torch.inf).max().item()
    bottom = max(top - FALL, nats.nan_to_num(torch.inf).min().item())
    if points is not None:
        marks = torch.cat([points.cpu().double(), torch.full((len(points), 1), bottom)], 1)
        figures.dots(axis, marks, color="black", marker="|", s=40, linewidths=0.6)
    axis.set_xlim(axes[0][0].item(), axes[0][-1].item())
    axis.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
    axis.set_xlabel("entry")
    axis.set_ylabel("log-density (nats)")
    return made
