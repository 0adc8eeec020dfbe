r"""Lengths and angles along a trajectory, and how two dimensions mislead about many."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_count
from .plane import of_path
from .trajectory import Trajectory

Row = dict[str, float]


class Claim(NamedTuple):
    r"""A number that differs between two dimensions and those of the data.

    Arguments:
        name: Its description.
        flat: Its value in two dimensions.
        here: Its value in the dimensions of the data.
    """

    name: str
    flat: float
    here: float


@checked
def measure(trajectory: Trajectory) -> list[Row]:
    r"""Returns lengths and angles at each state, averaged over the samples.

    Lengths are root mean squares over the entries, so that the length of noise is its level. They are those of
    the way to the estimate that the solver sees, the push of guidance, the difference of both predictions, the
    step, and its fresh noise. Angles are cosines: of the push with the way to the estimate from which guidance
    starts, with this estimate (which adds contrast), and with the push at the previous state. "hidden" is the
    fraction of the squared length of a step that the plane of the whole path does not show.

    Arguments:
        trajectory: The trajectory of :func:`follow`.

    Examples:
        >>> way = ss.geometry.follow(model, 4, steps=3)
        >>> len(ss.geometry.measure(way))
        4
    """

    x, D = trajectory.states, trajectory.guided
    table = {"noise level": trajectory.levels, "way": _mean(_rms(D - x))}
    push, base = trajectory.push, trajectory.base
    if push is not None and base is not None:
        estimate = trajectory.estimates[base]
        table["push"] = _mean(_rms(push))
        table["push / way"] = _mean(_rms(push) / _rms(estimate - x))
        table["cos(push, way)"] = _mean(_cosine(push, estimate - x))
        table["cos(push, estimate)"] = _mean(_cosine(push, estimate))
        turns = torch.cat(
            [
                x.new_full((1, x.shape[1]), math.nan),
                _cosine(push[1:], push[:-1]),
            ]
        )
        table["cos(push, last)"] = _mean(turns)
    if trajectory.difference is not None:
        table["difference"] = _mean(_rms(trajectory.difference))
    table["step"] = torch.cat([_mean(_rms(x[1:] - x[:-1])), torch.tensor([math.nan])])
    if trajectory.noise is not None:
        table["noise"] = torch.cat([_mean(_rms(trajectory.noise)), torch.tensor([math.nan])])
    if trajectory.dimension > 1:
        table["hidden"] = _hidden(trajectory)
    return [
        {name: float(column[i]) for name, column in table.items()}
        for i in range(len(trajectory.levels))
    ]


@checked
def high_dimensions(trajectory: Trajectory, *, draws: int = 2000, seed: int = 0) -> list[Claim]:
    r"""Returns numbers for which pictures in two dimensions mislead about many dimensions.

    Noise in d dimensions lies on a thin shell with the radius :math:`s \sqrt d`; two draws are nearly
    orthogonal, and so are noise and the push of guidance; a plane shows 2 / d of it.

    Arguments:
        trajectory: The trajectory of :func:`follow`.
        draws: The number of noise draws.
        seed: Their seed.

    Raises:
        ValueError: If the data has one dimension.

    Examples:
        >>> way = ss.geometry.follow(model, 4, steps=3)
        >>> len(ss.geometry.high_dimensions(way, draws=10)) > 0
        True
    """

    draws = check_count("draws", draws, at_least=2)
    if trajectory.dimension < 2:
        raise ValueError("data of one dimension has no angles; follow data of more.")
    draw, push = torch.Generator().manual_seed(seed), trajectory.push
    guided = push is not None and bool(push.abs().max() > 0)
    known = push if push is not None and guided else trajectory.guided
    way = known.double().flatten(2).flatten(0, 1).cpu()
    way = way[way.norm(dim=1) > 0]
    here = way[torch.randint(len(way), (draws,), generator=draw)]
    found = []
    for directions in (torch.tensor([[1.0, 0.0]], dtype=torch.float64), here):
        d = directions.shape[1]
        z, other = torch.randn(2, draws, d, generator=draw, dtype=torch.float64)
        lengths = z.norm(dim=1)
        numbers = (
            lengths.std() / lengths.mean(),
            (lengths < d**0.5 / 2).double().mean(),
            torch.cosine_similarity(z, other).abs().mean(),
            torch.cosine_similarity(z, directions).abs().mean(),
            2 / d,
        )
        found.append([float(number) for number in numbers])
    names = (
        "length of noise, spread over mean",
        "noise of less than half its usual length",
        "cosine of two draws of noise, size",
        f"cosine of noise and {'guidance' if guided else 'the estimate'}, size",
        "share of noise that a plane shows",
    )
    return [Claim(*row) for row in zip(names, *found, strict=True)]


def _hidden(trajectory: Trajectory) -> Tensor:
    found = []
    for sample in range(trajectory.states.shape[1]):
        plane = of_path(trajectory, sample)
        steps = trajectory.states[1:, sample] - trajectory.states[:-1, sample]
        found.append(plane.hidden(steps).cpu())
    return torch.cat([torch.stack(found).mean(0), torch.tensor([math.nan])])


def _rms(x: Tensor) -> Tensor:
    return x.double().flatten(2).square().mean(2).sqrt()


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return torch.cosine_similarity(x.double().flatten(2), y.double().flatten(2), dim=2)


def _mean(x: Tensor) -> Tensor:
    return x.mean(1).cpu()
