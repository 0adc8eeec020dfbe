r"""Levels drawn in proportion to the losses of the past."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.doors.signatures import checked, with_doors

from ...doors.data import as_floats, as_times
from ...models.checks import check_count, check_number
from ...processes.process import Process
from .distribution import Levels, as_log_snr, as_process
from .uniform import LogUniform


@checked
@dataclass(frozen=True)
class Importance(Levels):
    r"""Creates levels that are drawn more often where losses are large.

    The shares of another distribution are cut into bins of equal probability, and the bins drawn with the given
    probabilities. A loss times :meth:`ratio` has the same expectation as under the other distribution.

    Arguments:
        chances: The probabilities of the bins, from data to noise, up to a factor.
        base: The other distribution.

    Examples:
        >>> found = ss.losses.levels.Importance([3.0, 1.0], ss.losses.levels.LogUniform())
        >>> process = ss.VE(ss.Geometric(0.01, 100.0))
        >>> found.share(process, 0.0), found.ratio(process, [2.0, -2.0])
        (tensor(0.7500, dtype=torch.float64), tensor([0.6667, 2.0000], dtype=torch.float64))
    """

    chances: tuple[float, ...] | list[float]
    base: Levels

    def __post_init__(self) -> None:
        found = as_floats("chances", self.chances, least=1, dtype=torch.float64).flatten()
        if not bool((found > 0).all()):
            wrong = found[found <= 0][0].item()
            raise ValueError(f"chances must be positive, but one is {wrong:.4g}.")
        object.__setattr__(self, "chances", tuple((found / found.sum()).tolist()))

    @property
    def _table(self) -> tuple[Tensor, Tensor]:
        r"""The probabilities below the edges of the bins, and the shares of the base there."""

        below = torch.tensor([0.0, *self.chances], dtype=torch.float64).cumsum(0)
        return below / below[-1], torch.linspace(0, 1, len(below), dtype=torch.float64)

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        return self.base.log_snr(process, _interpolated(share, *self._table))

    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        below, edges = self._table
        return _interpolated(self.base.share(process, log_snr), edges, below)

    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        return self.base.density(process, log_snr) / self.ratio(process, log_snr)

    def ratio(self, process: Process, log_snr: Tensor) -> Tensor:
        r"""Returns the density of the base over this one, by which losses are multiplied."""

        chances = torch.tensor(self.chances, dtype=torch.float64)
        place = self.base.share(process, log_snr) * len(chances)
        return 1 / (len(chances) * chances[place.long().clamp(max=len(chances) - 1).cpu()])


def _interpolated(value: Tensor, of: Tensor, to: Tensor) -> Tensor:
    flat = np.interp(value.detach().cpu().numpy(), of.numpy(), to.numpy())
    return torch.as_tensor(flat, dtype=torch.float64).reshape(value.shape)


with_doors(Importance, {"ratio": {"process": as_process, "log_snr": as_log_snr}})


@checked
def importance(
    process: Process,
    log_snr: Tensor,
    loss: Tensor,
    *,
    base: Levels | None = None,
    bins: int = 32,
    floor: float = 0.1,
) -> Importance:
    r"""Returns levels drawn in proportion to the root mean square of past losses, which has the least variance.

    Arguments:
        process: The process.
        log_snr: The log-SNRs of past losses, with shape (N,).
        loss: These losses, before any importance weight, with shape (N,).
        base: The distribution under which the expectation of the loss is wanted. By default, uniform in log-SNR.
        bins: The number of bins, of equal probability under `base`. Those without losses take the values of
            their neighbours.
        floor: The fraction of the draws that follow `base`.

    Raises:
        ValueError: If there is not one loss per level.

    References:
        | Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), section 3.3
        | https://arxiv.org/abs/2102.09672

    Examples:
        >>> process = ss.VE(ss.Geometric(0.01, 100.0))
        >>> ss.losses.levels.importance(process, [2.0, -2.0], [3.0, 1.0], bins=2, floor=0.0).chances
        (0.75, 0.25)
    """

    base, bins = base or LogUniform(), check_count("bins", bins, at_least=1)
    floor = check_number("floor", floor, 0.0, 1.0)
    known = as_floats("loss", loss, least=1, dtype=torch.float64).flatten().detach().cpu()
    given = as_times("log_snr", log_snr).double().flatten().cpu()
    if given.shape != known.shape:
        raise ValueError(
            f"loss must have one number per log_snr, {len(given)}, but has {len(known)}."
        )
    place = (base.share(process, given) * bins).long().clamp(max=bins - 1)
    count = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, torch.ones_like(known))
    square = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, known.square())
    seen = count > 0
    where = torch.arange(bins, dtype=torch.float64)
    size = _interpolated(where, where[seen], (square[seen] / count[seen]).sqrt())
    if not bool(size.sum() > 0):
        size = torch.ones_like(size)
    chances = (1 - floor) * size / size.sum() + floor / bins
    return Importance(tuple(chances.clamp(min=1e-12).tolist()), base)
