r"""Evidence lower bounds as losses, of which one noise level per sample is a stratified or random term.

Both are negative bounds, in nats, of the expected log-density of data with the noise of `t_min`, in units of the
data. With the logs :math:`u_0` and :math:`u_1` of the first and the last noise level and the prior :math:`p_1`,
the part that does not depend on the model is

.. math:: - \mathbb{E} \log p_1(x + e^{u_1} z) - d \, (u_1 - u_0) .
"""

import math

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..likelihood.bounds import expected_prior
from ..models.checks import check_count
from ..models.score_model import ScoreModel
from ..runs.grids import grid_times
from .levels import Levels, LogUniform
from .levels.distribution import level_ends
from .noised import Noised, check_independent, noised, sum_square


@checked
def continuous_elbo(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    levels: Levels | None = None,
    **condition: Tensor,
) -> Tensor:
    r"""Returns an unbiased estimate of the negative bound in continuous time, in nats, with shape (B,).

    .. math:: \frac{1}{p(\lambda)} \, |\hat z(x_t) - z|^2 + \text{const}

    for log-SNRs drawn from the density p. If this is uniform, they are what importance sampling in time with
    the density :math:`g^2 / \sigma^2` gives, for any process.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, drawn from `levels`, with shape (B,).
        z: Standard noise, with shape (B, *).
        levels: The distribution of the levels, over the whole domain of the process. By default, they are
            uniform in log-SNR.
        condition: The conditions.

    Raises:
        ValueError: If the levels have the density 0 at a level.

    References:
        | Variational Diffusion Models (Kingma et al., 2021), equation (17)
        | https://arxiv.org/abs/2107.00630
        | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), section 4.3
        | https://arxiv.org/abs/2101.09258

    Examples:
        >>> count = 200_000
        >>> share = (torch.arange(count) + 0.5) / count
        >>> log_snr = ss.losses.levels.LogUniform().log_snr(model.process, share)
        >>> z = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
        >>> x = 0.5 * torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
        >>> loss = ss.losses.continuous_elbo(model, x, log_snr, z).mean()
        >>> bool((loss - 1.45).abs() < 0.1)  # the entropy of the data, 1 + log(2 pi 0.25)
        True
    """

    check_independent(model, "continuous_elbo")
    known = noised(model, x, log_snr, z, condition)
    density = (levels or LogUniform()).density(model.process, known.log_snr)
    if bool((density == 0).any()):
        where = known.log_snr[density == 0][0].item()
        raise ValueError(
            f"log_snr must be drawn from levels, but {where:.4g} has the density 0 there; pass the levels= that "
            "were used."
        )
    error = sum_square(model.noise(known.state, known.t, **known.condition) - known.z)
    return error / density.to(error) + _constant(model, known)


@checked
def discrete_elbo(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    steps: int = 1000,
    **condition: Tensor,
) -> Tensor:
    r"""Returns an unbiased estimate of the negative bound of an ancestral sampler, in nats, with shape (B,).

    The sampler takes T steps that are even in time, down to `t_min`, with the variances of the steps given the
    data. A loss has the term of the step that `log_snr` lies in,

    .. math:: T \, \frac{1}{2} \Big( \frac{\alpha_{k-1}^2}{\sigma_{k-1}^2} - \frac{\alpha_k^2}{\sigma_k^2}
        \Big) \, |D(x_{t_k}) - x|^2 + \text{const} ,

    T times the divergence from the model's step to the step given the data. With T to infinity, its mean is that
    of :func:`scoresde.losses.continuous_elbo`. (`ss.elbo(steps=T)` is the bound of another sampler, whose last
    step goes to the data itself.)

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,), of times that are uniform:
            :class:`scoresde.losses.levels.TimeUniform`.
        z: Standard noise, with shape (B, *).
        steps: The number T of steps.
        condition: The conditions.

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), equations (5) to (8)
        | https://arxiv.org/abs/2006.11239
        | Variational Diffusion Models (Kingma et al., 2021), equation (13)
        | https://arxiv.org/abs/2107.00630

    Examples:
        >>> vp = ss.GaussianOracle(torch.zeros(2), 0.5, ss.VP())
        >>> log_snr = ss.losses.levels.TimeUniform().log_snr(vp.process, [0.25, 0.75])
        >>> ss.losses.discrete_elbo(vp, torch.zeros(2, 2), log_snr, torch.ones(2, 2), steps=4).shape
        torch.Size([2])
    """

    check_independent(model, "discrete_elbo")
    steps, process = check_count("steps", steps, at_least=2), model.process
    t = noised(model, x, log_snr, z, condition).t
    times = grid_times(process, "t", process.t_min, process.t_max, steps)
    k = torch.searchsorted(times, t).clamp(1, steps)
    known = noised(model, x, process.log_snr(times[k]), z, condition)
    snr = torch.exp(2 * process.log_snr(times))
    error = sum_square(model.denoise(known.state, known.t, **known.condition) - known.x)
    return (steps * (snr[k - 1] - snr[k]) / 2).to(error) * error + _constant(model, known)


def _constant(model: ScoreModel, known: Noised) -> Tensor:
    r"""The part of the negative bound that does not depend on the model, with shape (B,)."""

    first, last = level_ends(model.process)
    square, d = sum_square(known.x), known.x[0].numel()
    return -expected_prior(model.process, square, d, math.exp(last)) - d * (last - first)
