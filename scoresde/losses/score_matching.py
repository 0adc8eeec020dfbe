r"""Score matching without the noise that was added: by the trace of the Jacobian of the score.

.. math:: \mathbb{E} |s - \nabla \log p|^2
    = \mathbb{E} \big[ |s|^2 + 2 \operatorname{tr} \nabla s \big] + \mathbb{E} |\nabla \log p|^2
"""

from functools import partial

import torch
from torch import Tensor

from solvers.divergence import BUDGET, jacobian_products, signs, trace
from solvers.doors.signatures import checked

from ..models.checks import check_count
from ..models.score_model import ScoreModel
from .noised import Noised, check_independent, noised, sum_square
from .weights import Weight, weights


@checked
def implicit_score(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    weight: str | Weight = "noise",
    **condition: Tensor,
) -> Tensor:
    r"""Returns the implicit score matching loss with the exact trace, with shape (B,).

    .. math:: \frac{c}{d} \big( |s(x_t)|^2 + 2 \operatorname{tr} \nabla s(x_t) \big) , \qquad
        c = w \, \sigma^4 / \alpha^2

    Its expectation is that of :func:`scoresde.losses.denoising` with the same weight, up to a constant that does
    not depend on the model. It takes d products with the Jacobian, so it is for small dimensions.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, with shape (B, *).
        weight: As in :func:`scoresde.losses.denoising`. By default, :math:`c = \sigma^2`.
        condition: The conditions.

    References:
        | Estimation of Non-Normalized Statistical Models by Score Matching (Hyvärinen, 2005), equation (4)
        | https://www.jmlr.org/papers/v6/hyvarinen05a.html

    Examples:
        >>> x = torch.zeros(1, 2)  # with s(0) = 0 and tr = - 2 / (0.25 + sigma^2)
        >>> ss.losses.implicit_score(model, x, torch.zeros(1), x)
        tensor([-1.6000])
    """

    check_independent(model, "implicit_score")
    known = noised(model, x, log_snr, z, condition)
    score, divergence = trace(_score(model, known), known.state)
    return _scale(model, known, weight) * (sum_square(score) + 2 * divergence.to(score))


@checked
def sliced_score(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    probes: int = 1,
    reduced: bool = True,
    weight: str | Weight = "noise",
    seed: int = 0,
    **condition: Tensor,
) -> Tensor:
    r"""Returns the sliced score matching loss, with shape (B,).

    .. math:: \frac{c}{d} \, \mathbb{E}_v \big[ (v \cdot s)^2 + 2 v^T \nabla s \, v \big]

    over random signs v. As :math:`\mathbb{E} (v \cdot s)^2 = |s|^2`, the first term can be replaced by its
    expectation, which reduces the variance. The expectation over v is :func:`scoresde.losses.implicit_score`.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, with shape (B, *).
        probes: The number of vectors v per sample. Each takes one product with the Jacobian.
        reduced: Whether the first term is replaced by its expectation.
        weight: As in :func:`scoresde.losses.denoising`.
        seed: The seed of the vectors. Give each training step another one.
        condition: The conditions.

    References:
        | Sliced Score Matching (Song et al., 2019), equations (7) and (8)
        | https://arxiv.org/abs/1905.07088

    Examples:
        >>> x = torch.zeros(1, 2)  # signs give the trace of an isotropic Jacobian exactly
        >>> ss.losses.sliced_score(model, x, torch.zeros(1), x, seed=1)
        tensor([-1.6000])
    """

    check_independent(model, "sliced_score")
    probes = check_count("probes", probes, at_least=1)
    known = noised(model, x, log_snr, z, condition)
    rows = torch.arange(len(known.x), device=known.x.device)
    v = signs(seed, rows, 0, probes, known.x[0].numel()).to(known.x)
    v = v.reshape(probes, *known.x.shape)
    chunk = min(probes, max(1, BUDGET // known.x.numel()))
    score, products = jacobian_products(_score(model, known), known.state, v, chunk)
    divergence = (v * products).flatten(2).sum(2).mean(0)
    square = (v * score).flatten(2).sum(2).square().mean(0)
    return _scale(model, known, weight) * (
        (sum_square(score) if reduced else square) + 2 * divergence
    )


def _score(model: ScoreModel, known: Noised) -> partial[Tensor]:
    return partial(model.score, t=known.t, **known.condition)


def _scale(model: ScoreModel, known: Noised, weight: str | Weight) -> Tensor:
    r"""The factor from squared scores to the weighted mean square of errors of denoised data, with shape (B,)."""

    alpha, sigma = model.process.scales(known.t)
    w = weights(weight, model.process, known.log_snr, model.data_std)
    return (w * (sigma**2 / alpha) ** 2).to(known.x) / known.x[0].numel()
