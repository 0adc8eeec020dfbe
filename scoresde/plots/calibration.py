r"""Pictures of calibration: ranks, and coverage by credibility, beside the band of uniform ranks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array

from ..doors.data import as_floats
from ..models.checks import check_count
from . import figures

BINS = 20
SIZE = (2.6, 2.1)


@checked
def ranks(file: str | Path, groups: Mapping[str, Array], draws: int, band: Array) -> None:
    r"""Draws histograms of ranks, and below them how far their distribution functions are from uniform ones.

    Arguments:
        file: The file to write.
        groups: Names, and ranks from 0 to `draws`, with shape (N,).
        draws: The largest rank.
        band: Probabilities, and the least and the largest distribution function there, with shape (3, K).

    Examples:
        >>> band = torch.tensor([[0.25, 0.5, 0.75], [0.1, 0.3, 0.6], [0.4, 0.7, 0.9]])
        >>> ss.plots.ranks(folder / "ranks.png", {"entry 0": torch.arange(4)}, 3, band)
        >>> (folder / "ranks.png").exists()
        True
    """

    known, draws, (shares, low, high) = _checked(groups, draws, band)
    _, axes = made = figures.figure(2, len(known), SIZE)
    bins = min(BINS, draws + 1)
    edges = [(draws + 1) * k / bins - 0.5 for k in range(bins + 1)]
    for column, (name, values) in enumerate(known.items()):
        top, bottom = axes[column], axes[len(known) + column]
        top.hist(values.tolist(), edges, color="0.6")
        top.axhline(len(values) / bins, color="black", linewidth=0.8, linestyle=":")
        top.set_title(name)
        top.set_xlabel("rank")
        bottom.fill_between(
            shares.tolist(), (low - shares).tolist(), (high - shares).tolist(), color="0.85"
        )
        function = _distribution(values, shares, draws)
        bottom.axhline(0.0, color="black", linewidth=0.8, linestyle=":")
        bottom.plot(shares.tolist(), (function - shares).tolist(), linewidth=1.4)
        bottom.set_xlabel("rank / number of ranks")
    axes[0].set_ylabel("pairs")
    axes[len(known)].set_ylabel("share below - uniform")
    figures.write(made[0], Path(file))


@checked
def coverage(file: str | Path, groups: Mapping[str, Array], draws: int, band: Array) -> None:
    r"""Draws the share of parameters within regions by the credibility of the regions.

    Arguments:
        file: The file to write.
        groups: Names, and ranks from 0 to `draws`, with shape (N,).
        draws: The largest rank.
        band: Credibilities, and the least and the largest coverage there, with shape (3, K).

    Examples:
        >>> band = torch.tensor([[0.25, 0.5, 0.75], [0.1, 0.3, 0.6], [0.4, 0.7, 0.9]])
        >>> ss.plots.coverage(folder / "coverage.png", {"posterior": torch.arange(4)}, 3, band)
        >>> (folder / "coverage.png").exists()
        True
    """

    known, draws, (shares, low, high) = _checked(groups, draws, band)
    made, [axis] = figures.figure(1, 1, (3.6, 3.6))
    axis.fill_between(
        shares.tolist(), low.tolist(), high.tolist(), color="0.85", label="right posteriors"
    )
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for name, values in known.items():
        axis.plot(
            shares.tolist(),
            _distribution(values, shares, draws).tolist(),
            linewidth=1.4,
            label=name,
        )
    axis.set_xlabel("credibility")
    axis.set_ylabel("coverage")
    axis.set_aspect("equal")
    figures.legend(axis)
    figures.write(made, Path(file))


def _distribution(values: Tensor, shares: Tensor, draws: int) -> Tensor:
    r"""The share of ranks below each share of all ranks."""

    places = (shares * (draws + 1)).round()
    return (values < places[:, None]).double().mean(1)


def _checked(
    groups: Mapping[str, Array], draws: int, band: Array
) -> tuple[dict[str, Tensor], int, Tensor]:
    figures.titled("groups", groups)
    draws = check_count("draws", draws, at_least=1)
    known = as_floats("band", band, least=2, dtype=torch.float64).cpu()
    if len(known) != 3 or known.ndim != 2:
        raise ValueError(f"band must have shape (3, K), but has {tuple(known.shape)}.")
    each = {
        name: as_floats("groups", values, least=1, dtype=torch.float64).flatten().cpu()
        for name, values in groups.items()
    }
    return each, draws, known
