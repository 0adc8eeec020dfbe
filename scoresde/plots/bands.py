r"""Vectors and time series as curves: the median and quantiles over samples, and a few samples themselves."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTILES = ((0.05, 0.95), (0.25, 0.75))  # of the bands, the widest first
CHANNELS = 10  # curves in one axis, at most
ALONE = 3  # samples that are drawn by themselves, where there is one channel
SIZE = (4.2, 2.6)


def bands(groups: dict[str, Tensor], across: int | None) -> "Figure":
    r"""Returns a figure with an axis for each group of curves, on a common scale.

    Arguments:
        groups: Titles, and finite curves with shape (B, c, n).
        across: The number of groups in a row. By default, at most three.
    """

    across = across or min(3, len(groups))
    made, axes = figures.figure(math.ceil(len(groups) / across), across, SIZE)
    for axis, (title, x) in zip(axes, groups.items(), strict=False):
        for channel in range(x.shape[1]):
            _draw(axis, x[:, channel], channel, x.shape[1])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("entry")
        axis.locator_params(axis="x", integer=True)
    for axis in axes[1 : len(groups)]:
        axis.sharey(axes[0])
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    axes[0].autoscale_view()
    figures.legend(axes[len(groups) - 1], below=False)
    return made


def _draw(axis: "Axes", x: Tensor, channel: int, channels: int) -> None:
    r"""Draws the curves of one channel, with shape (B, n)."""

    colour, places = f"C{channel}", range(x.shape[1])
    shares = sorted(share for pair in QUANTILES for share in pair)
    found = x.quantile(torch.tensor([*shares, 0.5], dtype=x.dtype), 0)
    known = dict(zip((*shares, 0.5), found.tolist(), strict=True))
    several = channels > 1
    for low, high in QUANTILES:
        words = None if several else f"quantiles {low:g} to {high:g}"
        axis.fill_between(
            places, known[low], known[high], color=colour, alpha=0.2, linewidth=0, label=words
        )
    name = f"channel {channel}, median" if several else "median"
    axis.plot(places, known[0.5], color=colour, linewidth=1.5, label=name)
    for i, curve in enumerate([] if several else x[:ALONE].tolist()):
        axis.plot(places, curve, color="0.3", linewidth=0.6, label=None if i else "single samples")
