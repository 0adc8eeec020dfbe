r"""The law of a Gaussian mixture under a process on blocks, in closed form.

For data :math:`\mathcal{N}(m, C)`, states are :math:`\mathcal{N}(A m, V)` with :math:`V = A C A^T + \Sigma`, and

.. math:: \mathbb{E}[x_0 \mid u] = m + C A^T V^{-1} (u - A m) .
"""

import math

import torch
from torch import Tensor

from ..processes.blocks.process import BlockProcess


def check_states(process: BlockProcess, u: Tensor, shape: tuple[int, ...]) -> None:
    r"""Refuses anything but states of data of the given sample shape."""

    wanted = tuple(process.state_shape((len(u), *shape)))
    if tuple(u.shape) != wanted:
        raise ValueError(
            f"x must be states of {type(process).__name__}, of shape {wanted}, but has {tuple(u.shape)}."
        )


def components(
    process: BlockProcess, means: Tensor, covariances: Tensor, u: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Returns the denoised data of each component, (B, K, D), and its log-density, (B, K), in float64.

    Arguments:
        process: The process.
        means: The means in the shape of samples, with shape (K, *).
        covariances: The covariances of flat samples, with shape (K, D, D).
        u: The states, with shape (B, *).
        t: The time, with shape () or (B,).
    """

    u, means, covariances = (value.to(u).double() for value in (u, means, covariances))
    A, noise = _dense(process, means, t.reshape(-1))  # (T, n, D) and (T, n, n), with T = 1 or B
    crossed, n = covariances[:, None] @ A.mT, u[0].numel()  # (K, T, D, n)
    root = torch.linalg.cholesky(A @ crossed + noise)
    apart = u.flatten(1) - (means.flatten(1)[:, None, None] @ A.mT)[:, :, 0]  # (K, B, n)
    each = apart.mT[:, None] if len(A) == 1 else apart[..., None]  # (K, T, n, B or 1)
    pulled = torch.cholesky_solve(each, root)
    shift = crossed @ pulled
    pulled, shift = (value[:, 0].mT if len(A) == 1 else value[..., 0] for value in (pulled, shift))
    logs = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_prob = -(apart * pulled).sum(-1) / 2 - logs - n / 2 * math.log(2 * math.pi)
    return (means.flatten(1)[:, None] + shift).movedim(0, 1), log_prob.T


def data_log_prob(
    process: BlockProcess, means: Tensor, covariances: Tensor, x: Tensor, t: Tensor
) -> Tensor:
    r"""Returns the log-density of data with the noise of the first parts of states, in units of data, (B, K).

    Arguments:
        process: The process.
        means: The means in the shape of samples, with shape (K, *).
        covariances: The covariances of flat samples, with shape (K, D, D).
        x: Data, with shape (B, *).
        t: The time, with shape ().
    """

    size = x[0].numel()
    means, covariances = means.to(x).double(), covariances.to(x).double()
    A, noise = (part[0, :size] for part in _dense(process, means, t.reshape(1)))
    root = torch.linalg.cholesky(A @ covariances @ A.T + noise[:, :size])
    apart = (x.double().flatten(1)[:, None] - means.flatten(1)) @ A.T  # (B, K, D)
    white = torch.linalg.solve_triangular(root, apart.movedim(0, -1), upper=False)
    logs = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - torch.linalg.slogdet(A)[1]
    return -white.square().sum(1).T / 2 - logs - size / 2 * math.log(2 * math.pi)


def _dense(process: BlockProcess, means: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""The matrices A and Sigma of flat samples and states at times with shape (T,)."""

    def dense(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        eye = torch.eye(size).to(means).reshape(size, *shape).repeat(len(t), *(1,) * len(shape))
        found = process.times(matrix.repeat_interleave(size, 0), eye)
        return found.flatten(1).reshape(len(t), size, -1).mT

    inner = tuple(means.shape[1:])
    outer = tuple(process.state_shape((1, *inner))[1:])
    return dense(process.signal_matrix(t), inner), dense(process.covariance(t), outer)
