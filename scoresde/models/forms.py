r"""Estimates as combinations of noisy and denoised data."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..processes.process import Pair, Process

Form = Callable[[Process, Tensor], Pair]  # coefficients of the noisy and of the denoised data


def data_form(process: Process, t: Tensor) -> Pair:
    r"""The coefficients of the noisy and of the denoised data in the denoised data: 0 and 1."""

    return torch.zeros_like(t), torch.ones_like(t)


def noise_form(process: Process, t: Tensor) -> Pair:
    r"""The coefficients of the noisy and of the denoised data in the predicted noise."""

    alpha, sigma = process.scales(t)
    return 1 / sigma, -alpha / sigma


def score_form(process: Process, t: Tensor) -> Pair:
    r"""The coefficients of the noisy and of the denoised data in the score."""

    alpha, sigma = process.scales(t)
    return -1 / sigma**2, alpha / sigma**2


def velocity_form(process: Process, t: Tensor) -> Pair:
    r"""The coefficients of the noisy and of the denoised data in the velocity."""

    f, slope = process.rates(t)
    return f - slope, slope * process.scales(t)[0]
