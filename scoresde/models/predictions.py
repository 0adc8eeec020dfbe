r"""Prediction types of networks, and the denoised data that follows from each."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..processes.process import Process


class Preconditioning(NamedTuple):
    r"""The denoised data in terms of a network F: :math:`D = skip \, x + out \, F(scale \, x)`.

    Arguments:
        skip: The coefficient of the noisy data.
        out: The coefficient of the network.
        scale: The factor of the noisy data in the network's input.
        label: The time in the network's input, or `None` for t itself.
    """

    skip: Tensor
    out: Tensor
    scale: Tensor
    label: Tensor | None = None


def _data(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    return Preconditioning(torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t))


def _noise(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.bare_scales(t)
    return Preconditioning(1 / alpha, -sigma / alpha, torch.ones_like(t))


def _score(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.bare_scales(t)
    return Preconditioning(1 / alpha, sigma**2 / alpha, torch.ones_like(t))


def _v(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.bare_scales(t)  # v = alpha z - sigma x0
    total = alpha**2 + sigma**2
    return Preconditioning(alpha / total, -sigma / total, torch.ones_like(t))


def _velocity(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    f, slope = process.bare_rates(t)  # u = (f - slope) x + slope alpha D
    alpha, _ = process.bare_scales(t)
    return Preconditioning((slope - f) / (slope * alpha), 1 / (slope * alpha), torch.ones_like(t))


def _edm(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.bare_scales(t)
    level = sigma / alpha
    total = level**2 + data_std**2
    return Preconditioning(
        skip=data_std**2 / total / alpha,
        out=level * data_std / total.sqrt(),
        scale=1 / total.sqrt() / alpha,
        label=level.log() / 4,
    )


PREDICTIONS: dict[str, Callable[[Process, Tensor, float], Preconditioning]] = {
    "data": _data,
    "noise": _noise,
    "score": _score,
    "v": _v,
    "velocity": _velocity,
    "edm": _edm,
}
