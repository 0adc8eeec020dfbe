r"""The schedule of a linear share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..processes.schedules import Schedule


@dataclass(frozen=True)
class Linear(Schedule, constant=True):
    r"""Creates the schedule with which the share of the data in a chain falls linearly, :math:`\alpha = 1 - t`.

    .. math:: \lambda(t) = \tfrac{1}{2} \log \frac{1 - t}{t}

    Examples:
        >>> chain = ss.chains.Absorbing(3, ss.chains.Linear())
        >>> round(float(chain.shares(torch.tensor(0.25))[0]), 4)
        0.75
    """

    @property
    def domain(self) -> tuple[float, float]:
        return 0.0, 1.0

    def __call__(self, t: Tensor) -> Tensor:
        return (torch.log1p(-t) - torch.log(t)) / 2

    def inverse(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-2 * log_snr)
