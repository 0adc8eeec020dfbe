r"""Denoising losses."""

import torch
from torch import Tensor

from solvers.doors.values import as_tensor

from ..doors.data import as_state
from ..models.score_model import ScoreModel


def denoising_loss(
    model: ScoreModel, x: Tensor, log_snr: Tensor, z: Tensor, **condition: Tensor
) -> Tensor:
    r"""Returns the squared error of the denoised data at given noise levels, with shape (B,).

    It is the mean over the entries of :math:`w \, (D(x_t) - x_0)^2` with :math:`s = \sigma / \alpha`
    and :math:`w = 1 / s^2 + 1 / c^2` for data with root mean square c, which gives all levels equal weight if
    the network's target has unit scale at all of them.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` for each sample, with shape (B,).
        z: Standard noise, with shape (B, *).
        condition: The conditions.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        | equation (8)
        | https://arxiv.org/abs/2206.00364
    """

    x, z, log_snr = as_state("x", x), as_state("z", z), as_tensor("log_snr", log_snr)
    if log_snr.shape not in ((), (1,), (len(x),)):
        raise ValueError(f"log_snr must have shape ({len(x)},), but has {tuple(log_snr.shape)}.")
    t = model.process.time(log_snr.double())
    weight = torch.exp(2 * log_snr) + 1 / model.data_std**2
    noisy = model.process.perturb(x.double(), t, z.double()).to(x)
    error = model.denoise(noisy, t, **condition) - x
    return weight * error.square().flatten(1).mean(1)
