r"""The distribution of noise levels that is trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..processes.process import Process


@dataclass(frozen=True)
class LogNormal:
    r"""Creates the log-normal distribution of noise levels.

    .. math:: \log (\sigma / \alpha) \sim \mathcal{N}(mean, std^2)

    Arguments:
        mean: The mean of the logarithm.
        std: Its standard deviation.
    """

    mean: float = -1.2
    std: float = 1.2

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        r"""Returns the log-SNRs at shares of the distribution, within the domain of the process."""

        ends = process.log_snr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
        found = -(self.mean + self.std * torch.special.ndtri(share.double()))
        return found.clamp(*ends.tolist())
