r"""Errors of the denoised data under a process on blocks, in the units of a prediction."""

import torch
from torch import Tensor

from ..models.block_forms import READINGS
from ..models.score_model import ScoreModel
from ..processes.blocks.process import BlockProcess

BLOCK_WEIGHTS = (*READINGS, "likelihood")


def as_error(
    model: ScoreModel, process: BlockProcess, weight: str, error: Tensor, t: Tensor
) -> Tensor:
    r"""Returns an error of the denoised data as that of a prediction.

    A network F that predicts :math:`D = skip \, u + out \, F` has the error :math:`out^{-1}` times that of D. The
    error of "likelihood" is :math:`G^T \Sigma^{-1} A / \sqrt 2` times it, that of :math:`G^T` times the score.

    Arguments:
        model: The score model.
        process: Its process.
        weight: The name of the weight.
        error: The error of D, with shape (B, \*).
        t: The times, with shape (B,), in float64 on the CPU.
    """

    if weight == "likelihood":
        A, G = process.signal_matrix(t), process.diffusion(t)
        pulled = G.mT @ torch.cholesky_solve(A, process.root(t)) / 2**0.5
        scale = (process.size / process.data_size) ** 0.5  # of a mean over more entries
        return process.times(pulled, error) * scale
    out = READINGS[weight](process, t, model.data_std).out
    return process.times(torch.linalg.inv(out), error)
