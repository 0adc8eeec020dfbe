r"""One model for each range of noise levels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_interval, check_numbers
from ..models.score_model import ScoreModel
from .affine import Affine
from .guided import Guided


@checked
def experts(models: Sequence[ScoreModel], levels: Sequence[float]) -> ScoreModel:
    r"""Returns the model that calls one of several models, depending on the noise level.

    Arguments:
        models: The models, beginning with that of the lowest noise levels.
        levels: The noise levels :math:`\sigma / \alpha` at which the next model takes over, in increasing order.

    Raises:
        ValueError: If `levels` are not rising noise levels, one between any two models.

    References:
        | eDiff-I: Text-to-Image Diffusion Models with an Ensemble of Expert Denoisers (Balaji et al., 2022)
        | https://arxiv.org/abs/2211.01324

    Examples:
        >>> both = ss.guidance.experts([model, ss.GaussianOracle(torch.ones(2), 0.5)], [1.0])
        >>> both.denoise(torch.ones(2, 2), torch.tensor([0.5, 2.0]))
        tensor([[0.5000, 0.5000],
                [1.0000, 1.0000]])
    """

    levels = check_numbers("levels", levels)
    rising = levels == sorted(set(levels))
    if len(levels) != len(models) - 1 or not rising or min(levels, default=1) <= 0:
        raise ValueError(
            f"levels must be {len(models) - 1} noise levels that rise above 0, one between any two models, not "
            f"{list(levels)}."
        )
    return Guided(models, Experts(tuple(float(level) for level in levels)))


@checked
def within(guided: ScoreModel, model: ScoreModel, interval: tuple[float, float]) -> ScoreModel:
    r"""Returns the guided model within an interval of noise levels, and the model outside.

    Guidance by gradients through a network also has its own limit, `max_level` of :func:`universal`.

    Arguments:
        guided: The guided model.
        model: The model outside the interval.
        interval: The noise levels, the lower first; 0 and `inf` stand for no limit.

    Examples:
        >>> wide = ss.GaussianOracle(torch.zeros(2), 1.0)
        >>> guided = ss.guidance.within(wide, model, (1.0, 5.0))
        >>> guided.denoise(torch.ones(2, 2), torch.tensor([0.5, 1.0]))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    check_interval(interval)
    low, high = interval
    before, after = [model] * (low > 0), [model] * (high < math.inf)
    levels = tuple(float(level) for level in interval if 0 < level < math.inf)
    return Guided([*before, guided, *after], Within(levels, len(before)))


@dataclass(frozen=True)
class Experts(Affine):
    r"""See :func:`experts`."""

    levels: tuple[float, ...]
    roles, others, changes, apart = (), "expert", False, True

    def weights(self, levels: Tensor) -> Tensor:
        edges = torch.tensor(self.levels, dtype=torch.float64)
        number = torch.bucketize(levels, edges, right=True)
        return torch.nn.functional.one_hot(number, len(edges) + 1).double()

    def cost(self, costs: Sequence[int]) -> int:
        return max(costs)

    def part_levels(self, models: Sequence[ScoreModel], level: float) -> list[float]:
        edges = [0.0, *self.levels, math.inf]
        return [min(max(level, low), high) for low, high in pairwise(edges)]


@dataclass(frozen=True)
class Within(Experts):
    r"""See :func:`within`. Plots show the guided model, which has this index."""

    inside: int

    def parts(self, models: Sequence[ScoreModel]) -> dict[str, ScoreModel]:
        return models[self.inside].parts

    def part_levels(self, models: Sequence[ScoreModel], level: float) -> list[float]:
        return models[self.inside].part_levels(super().part_levels(models, level)[self.inside])
