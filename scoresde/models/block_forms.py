r"""Estimates of models of processes on blocks, and the denoised data in terms of their networks.

With :math:`u = A x_0 + L z` and :math:`\Sigma = L L^T`, noise, score and velocity are linear in
:math:`D = \mathbb{E}[x_0 \mid u]`, as they are with numbers in place of matrices. If the state has auxiliary
parts, such as velocities, a network predicts noise or score of the last j of its k parts alone, which determine
D: with L lower triangular, the last parts of z are independent of the first.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..processes.blocks.process import BlockProcess
from .forms import Form, noise_form, score_form, velocity_form


class Reading(NamedTuple):
    r"""The denoised data in terms of a network F: :math:`D = skip \, u + out \, F(scale \, u)`.

    Arguments:
        skip: The matrix of the state, with shape (\*, c, j, k).
        out: The matrix of the network, with shape (\*, c, j, j).
        scale: The matrix of the state in the network's input, with shape (\*, c, k, k), or `None` for I.
        label: The time in the network's input, or `None` for t itself.
    """

    skip: Tensor
    out: Tensor
    scale: Tensor | None = None
    label: Tensor | None = None


def _data(process: BlockProcess, t: Tensor, data_std: float) -> Reading:
    A = process.signal_matrix(t)
    eye = torch.eye(A.shape[-1], dtype=torch.float64).expand(*A.shape[:-2], -1, -1)
    return Reading(torch.zeros_like(A.mT), eye)


def _noise(process: BlockProcess, t: Tensor, data_std: float) -> Reading:
    A, root = process.signal_matrix(t), process.root(t)
    last = torch.linalg.inv(root)[..., -process.data_size :, :]
    own = torch.linalg.inv(last @ A)
    return Reading(own @ last, -own)


def _score(process: BlockProcess, t: Tensor, data_std: float) -> Reading:
    A, root = process.signal_matrix(t), process.root(t)
    last = torch.cholesky_inverse(root)[..., -process.data_size :, :]
    own = torch.linalg.inv(last @ A)
    return Reading(own @ last, own)


def _edm(process: BlockProcess, t: Tensor, data_std: float) -> Reading:
    A, variance = process.signal_matrix(t), data_std**2
    total = torch.linalg.cholesky(variance * (A @ A.mT) + process.covariance(t))
    skip = variance * torch.cholesky_solve(A, total).mT
    told = torch.linalg.solve_triangular(process.root(t), A, upper=False)
    eye = torch.eye(A.shape[-1], dtype=torch.float64)
    rest = torch.linalg.inv(torch.linalg.cholesky(eye / variance + told.mT @ told)).mT
    return Reading(skip, rest, torch.linalg.inv(total), -process.log_snr(t) / 4)


READINGS: dict[str, Callable[[BlockProcess, Tensor, float], Reading]] = {
    "data": _data,
    "noise": _noise,
    "score": _score,
    "edm": _edm,
}


def check_reading(process: BlockProcess, predicts: str) -> None:
    r"""Refuses predictions that mean nothing for matrices."""

    if predicts not in READINGS:
        choices = ", ".join(map(repr, READINGS))
        raise ValueError(
            f"predicts={predicts!r} is for processes with numbers alpha and sigma, not for {process}; a network "
            f"of it predicts one of {choices}."
        )


def estimate_of(
    form: Form, process: BlockProcess, u: Tensor, denoised: Tensor, t: Tensor
) -> Tensor:
    r"""Returns noise, score or velocity of states, each with their shape, from the denoised data."""

    if form is noise_form:
        return process.noise_of(u, denoised, t)
    score = process.score_of(u, denoised, t)
    if form is score_form:
        return score
    assert form is velocity_form
    return process.drift(u, t) - process.spread(score, t) / 2
