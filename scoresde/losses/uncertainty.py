r"""Learned uncertainty: the weight of each noise level is learned with the model."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.noise.brownian import DATA, DATA_NOISE, keyed_normal, keyed_uniform

from ..models.checks import check_count
from ..models.score_model import ScoreModel
from .denoised import denoising
from .seeded import takes_seed

Loss = Callable[..., Tensor]


@checked
class Uncertainty(nn.Module):
    r"""Creates a loss whose levels count alike, whatever their size: each is divided by its learned expectation.

    .. math:: e^{-u(\lambda)} L + u(\lambda)

    The minimum over u is at :math:`u = \log \mathbb{E}[L \mid \lambda]`, where the first term is 1 on average, so
    the gradients of all levels have a like size. u is a linear combination of random Fourier features of
    :math:`\lambda`, and 0 at first. Train its parameters with those of the network.

    Arguments:
        loss: A loss that is positive, by default :func:`scoresde.losses.denoising` with its default weight.
        features: The number of features.
        seed: The seed of the features.

    References:
        | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), equations (14)
        | and (15)
        | https://arxiv.org/abs/2312.02696
        | Multi-Task Learning Using Uncertainty to Weigh Losses (Kendall et al., 2018), equation (7)
        | https://arxiv.org/abs/1705.07115

    Examples:
        >>> loss = ss.losses.Uncertainty()
        >>> x, z = torch.zeros(2, 2), torch.ones(2, 2)
        >>> bool((loss(model, x, torch.zeros(2), z) == ss.losses.denoising(model, x, torch.zeros(2), z)).all())
        True
    """

    def __init__(self, loss: Loss = denoising, features: int = 128, seed: int = 0) -> None:
        super().__init__()
        features = check_count("features", features, at_least=1)
        self.loss, self.seeded = loss, takes_seed(loss)
        zero = torch.zeros(1, dtype=torch.int64)
        rates = keyed_normal(seed, zero, DATA_NOISE, 0, features)[0]
        phases = keyed_uniform(seed, zero, DATA, 0, features)[0]
        self.coefficients = nn.Parameter(torch.zeros(features))
        self.offset = nn.Parameter(torch.zeros(()))
        self.rates = nn.Buffer(2 * math.pi * rates.to(self.coefficients))
        self.phases = nn.Buffer(2 * math.pi * phases.to(self.coefficients))

    def log_loss(self, log_snr: Tensor) -> Tensor:
        r"""Returns :math:`u(\lambda)`, the log of the expected loss, with the shape of `log_snr`."""

        level = -log_snr.to(self.rates)[..., None] / 4  # log(sigma / alpha) / 4, of the size of 1
        features = math.sqrt(2 / len(self.rates)) * torch.cos(self.rates * level + self.phases)
        return features @ self.coefficients + self.offset

    def forward(
        self,
        model: ScoreModel,
        x: Tensor,
        log_snr: Tensor,
        z: Tensor,
        *,
        seed: int = 0,
        **options: Tensor,
    ) -> Tensor:
        r"""Returns the loss of each sample, with shape (B,).

        Arguments:
            model: The score model.
            x: Clean data, with shape (B, *).
            log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
            z: The other end, with shape (B, *).
            seed: The seed of the loss, if it draws numbers of its own.
            options: The options of the loss, and the conditions.
        """

        own: dict[str, Any] = {"seed": seed} if self.seeded else {}
        value = self.loss(model, x, log_snr, z, **own, **options)
        u = self.log_loss(torch.as_tensor(log_snr)).to(value)
        return torch.exp(-u) * value + u
