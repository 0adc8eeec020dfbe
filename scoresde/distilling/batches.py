r"""Batches of noisy data for a student, and the teacher's steps from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from solvers import Solver, get
from solvers.noise.brownian import DATA, LEVELS, START, keyed_normal, keyed_uniform

from ..models.conditions import Bound, rows_of
from ..models.score_model import ScoreModel
from ..sampling import decode


@dataclass(frozen=True)
class Batches:
    r"""Creates batches of data, keyed by seed and step.

    Arguments:
        model: The model whose process adds noise.
        data: Data, with shape (N, *).
        condition: The conditions, each with leading size N or 1.
        size: The number of samples per batch.
        seed: The seed.
    """

    model: ScoreModel
    data: Tensor
    condition: Mapping[str, Bound]
    size: int
    seed: int

    def choice(self, step: int, count: int, stream: int = LEVELS) -> Tensor:
        r"""Returns whole numbers below `count` for the batch of a step, with shape (size,)."""

        share = keyed_uniform(self.seed, self._index(step), stream, 0, 1)[:, 0]
        return (share * count).long()

    def noisy(self, step: int, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        r"""Returns noisy data of a step at given times, with shape (size, *), and its conditions."""

        rows = self.choice(step, len(self.data), DATA).to(self.data.device)
        x = self.data[rows]
        z = keyed_normal(self.seed, self._index(step), START, 0, x[0].numel())
        z = z.to(x).reshape(x.shape)
        noisy = self.model.process.perturb(x.double(), t, z.double()).to(x)
        return noisy, cast(dict[str, Tensor], rows_of(self.condition, rows))

    def _index(self, step: int) -> Tensor:
        return torch.arange(self.size) + step * self.size


@torch.no_grad()
def stepped(
    model: ScoreModel,
    x: Tensor,
    start: Tensor,
    stop: Tensor,
    solver: str | Solver,
    tolerance: float,
    condition: dict[str, Tensor],
) -> Tensor:
    r"""Returns states carried along the flow from one time to another, with shape (B, *).

    Arguments:
        model: The model of the flow.
        x: The states, with shape (B, *).
        start: Their times, with shape (B,).
        stop: The times to reach, with shape (B,).
        solver: The solver: an adaptive one, or one of one step.
        tolerance: The tolerance of an adaptive solver.
        condition: The conditions.
    """

    solver = get(solver)
    close = None if solver.can.fixed else tolerance
    return decode(
        model.given(**condition),
        x,
        times=torch.stack([start, stop]),
        solver=solver,
        rtol=close,
        atol=close,
        denoise=False,
    ).x
