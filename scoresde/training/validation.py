r"""The loss on held-out data at fixed noise levels, with fixed noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.network import NetworkScore
from . import draws
from .batches import Batch
from .objective import Drawing, Objective

LEVELS, ROWS = 8, 128  # noise levels, and held-out samples at each
ALWAYS = -1  # the step of all draws


@dataclass(frozen=True)
class Losses:
    r"""The loss on held-out data.

    Arguments:
        levels: The noise level and the mean loss at each, from little to much noise.
    """

    levels: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        r"""The mean over the levels, which are the middles of even shares of their distribution."""

        return sum(loss for _, loss in self.levels) / len(self.levels)


def held_out_loss(objective: Objective, drawing: Drawing, held: Batch, batch_size: int) -> Losses:
    r"""Returns the loss of a model at each noise level; the data, the levels and the noise are always the same.

    Arguments:
        objective: The loss of the model, which is not in training mode.
        drawing: How batches become what the loss takes.
        held: The held-out data, of which some samples are used.
        batch_size: How many samples the network is asked of at once.
    """

    held = held.rows(validated(len(held.x)).to(held.x.device))
    place = torch.arange(len(held.x))
    x, _, z, seed, condition = drawing(objective.model, held, ALWAYS, place, len(place))
    found = []
    for level in levels_of(drawing, objective.model):
        log_snr = level.to(x).expand(len(x))
        losses = torch.cat([
            objective(x[i], log_snr[i], z[i], seed, {n: v[i] for n, v in condition.items()}).detach()
            for i in place.split(batch_size)
        ])  # fmt: skip
        found.append((math.exp(-float(level)), float(losses.double().mean())))
    return Losses(tuple(found))


def validated(count: int) -> Tensor:
    r"""Returns the held-out samples on which the loss is measured, drawn from all, since data is often sorted."""

    return draws.chosen(0, count, draws.HELD)[:ROWS].sort().values


def scored(count: int, size: int) -> Tensor:
    r"""Returns others on which the result is measured, as far as there are enough.

    Arguments:
        count: The number of held-out samples.
        size: How many are measured at most.
    """

    return draws.chosen(0, count, draws.HELD).flip(0)[:size].sort().values


def levels_of(drawing: Drawing, model: NetworkScore) -> Tensor:
    r"""Returns the log-SNRs at the middles of even shares of their distribution, with the least noise first."""

    share = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return drawing.levels.log_snr(model.process, share).sort(descending=True).values
