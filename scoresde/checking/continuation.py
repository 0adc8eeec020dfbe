r"""Continuations of noisy data along the reverse SDE, and the squares of vectors that are known with noise.

The estimates :math:`D(X_\lambda, \lambda)` of an exact model are a martingale along its reverse SDE
:math:`dX = 2 (D - X) \, d\lambda + \sqrt 2 \, e^{-\lambda} dw`: on average, they do not change.

References:
    | Consistent Diffusion Models: Mitigating Sampling Drift by Learning to be Consistent (Daras et al., 2023)
    | https://arxiv.org/abs/2302.09057
"""

import math

import torch
from torch import Tensor

from solvers.noise.brownian import FRESH, Seed, keyed_normal

from ..models.score_model import ScoreModel
from .terms import denoiser

STEP = 0.1  # of the log-SNR


def continued(
    model: ScoreModel,
    X: Tensor,
    log_snr: Tensor,
    z: Tensor,
    condition: dict[str, Tensor],
    step: float = STEP,
) -> Tensor:
    r"""Returns the change of the estimate over a step of the reverse SDE, per unit of log-SNR, as (k, B, *).

    Each draw of noise is taken with both signs, so that odd powers of it cancel. The step is of second order:

    .. math:: X' = D + \rho \, (X - D) + w \, (\hat D - D) + r \sqrt{1 - \rho} \, z , \qquad
        \rho = e^{-2 h} , \quad w = 1 - \frac{1 - \rho}{2 h} ,

    where r is the noise level at its end, and :math:`\hat D` the estimate there after the same step without w.

    Arguments:
        model: The model.
        X: The noisy data over :math:`\alpha`, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma`, with shape (B,), in float64.
        z: Independent normal draws, with shape (k, B, *).
        condition: The conditions.
        step: The step h of the log-SNR.
    """

    D = denoiser(model, log_snr, condition)(X)
    end = denoiser(model, log_snr + step, condition)
    kept = math.exp(-2 * step)
    weight = 1 + math.expm1(-2 * step) / (2 * step)
    level = torch.exp(-(log_snr + step)).to(X).reshape(-1, *(1,) * (X.ndim - 1))
    found = []
    for draw in z:
        ends = []
        for sign in (1.0, -1.0):
            first = D + kept * (X - D) + sign * level * math.sqrt(1 - kept) * draw
            ends.append(end(first + weight * (end(first) - D)))
        found.append((sum(ends) / 2 - D) / step)
    return torch.stack(found)


def normals(seed: Seed, index: Tensor, number: int, count: int, X: Tensor) -> Tensor:
    r"""Returns independent normal draws for states, keyed by seed and sample, with shape (count, B, *)."""

    drawn = keyed_normal(seed, index, FRESH, number, count * X[0].numel())
    return drawn.to(X).reshape(len(X), count, *X.shape[1:]).transpose(0, 1)


def squared(draws: Tensor) -> Tensor:
    r"""Returns the mean square over entries of the mean of independent draws, without bias, with shape (B,).

    It is :math:`\sum_{i \ne j} r_i \cdot r_j / (k (k - 1))`, which can be negative; one draw counts as exact.

    Arguments:
        draws: The draws, with shape (k, B, *).
    """

    k, flat = len(draws), draws.double().flatten(2)
    if k == 1:
        return flat[0].square().mean(1)
    whole = flat.sum(0).square() - flat.square().sum(0)
    return whole.mean(1) / (k * (k - 1))
