r"""The gap between the prior and the law of noisy data at the end.

At the last noise level :math:`s = e^u`, the companion, a Gaussian with the known moments, is compared with the
prior. For a model with a condition, or with unknown moments, the data lies elsewhere: the model denoises to
:math:`D = D_G + r` and not to the companion's :math:`D_G`. For a Gaussian whose mean differs by
:math:`\Delta = (I - G)^{-1} r`, the log-density is that of the companion plus

.. math:: \frac{\Delta \cdot (y - D_G)}{s^2} - \frac{\Delta \cdot r}{2 s^2} .

Another covariance also changes the trace of the Jacobian, by :math:`\tau`, from which its effect follows: it
adds :math:`q \tau` to the product above with :math:`q = |y|^2 / (d s^2)`, and :math:`(q - 1) \tau / 2` to the
log-density, up to some :math:`\tau` if directions differ.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.masked import entries_of, masked_of
from ..models.scale import signal
from ..models.score_model import ScoreModel
from .companion import Companion

MOST = 0.9  # gain below which the model says little about the mean of the data
MARGIN = 0.1  # of the effect of the model's own mean, which non-Gaussian data may change


class Tail(NamedTuple):
    r"""The information of the last node about the location of the data.

    Arguments:
        u: The logarithm of its noise level, with shape (B,).
        mean: The mean :math:`\Delta` minus the companion's, with shape (B, *).
        trace: The trace :math:`\tau` minus the companion's, with shape (B,).
    """

    u: Tensor
    mean: Tensor
    trace: Tensor

    @staticmethod
    def of(companion: Companion, y: Tensor, u: Tensor, denoised: Tensor, trace: Tensor) -> "Tail":
        r"""Returns the difference of model and companion for states y."""

        rest = companion.split((denoised - companion.denoise(y, u)).detach()[None])
        return Tail(u, companion.directions(rest / (1 - companion.gains(u)))[0], trace.detach())


def prior_density(model: ScoreModel, x: Tensor) -> Tensor:
    r"""Returns the log-density of states at `t_max` under the prior, in units of the data, with shape (B,).

    The entries of a masked model that do not exist have their own law, which the prior is not.
    """

    process, d = model.process, x[0].numel()
    alpha = signal(model, process.t_max)
    known = process.prior_log_prob(x) + d * math.log(alpha)
    part = masked_of(model)
    if part is None:
        return known
    own = part.scale**2 + process.noise_level(process.t_max) ** 2
    return known + part.absent(x) * math.log((process.prior_std() / alpha) ** 2 / own) / 2


def prior_gap(
    model: ScoreModel, companion: Companion, x: Tensor, tail: Tail, data: Tensor
) -> Tensor:
    r"""Returns the difference of the log-densities of noisy data and the prior, with shape (B,).

    Arguments:
        model: The score model.
        companion: The Gaussian companion.
        x: The states at `t_max`, with shape (B, *).
        tail: The data of the last node.
        data: The data, with shape (B, *).
    """

    end = torch.tensor(model.process.t_max, dtype=torch.float64)
    alpha, u = float(model.process.scales(end)[0]), -model.process.log_snr(end)
    y, s = x / alpha, math.exp(float(u))
    known = companion.log_prob(y, float(u)) - prior_density(model, x)
    denoised = companion.denoise(y, u.expand(len(y)))
    apart, mean = ((value / s).flatten(1).double() for value in (y - denoised, tail.mean))
    shift = (mean * apart).sum(1) - mean.square().sum(1) / 2
    nearer = torch.exp(tail.u - u.to(tail.u.device))  # it belongs to a lower noise level
    d = _dimensions(model, x)
    q = (y / s).flatten(1).double().square().sum(1) / d
    other = tail.trace * nearer * ((q - 1) / 2 * nearer - q)
    gap = (known + shift + other).abs() + MARGIN * shift.abs() + (tail.trace * nearer).abs()
    if companion.known:
        return gap
    return torch.maximum(gap, _loose_gap(companion, data, tail, q, s, d))


def _dimensions(model: ScoreModel, x: Tensor) -> Tensor:
    r"""The number of entries of each state that exist, with shape (B,), in float64."""

    found = entries_of(model, x)
    d = torch.full((len(x),), x[0].numel(), device=x.device) if found is None else found
    return d.double()


def _loose_gap(
    companion: Companion, data: Tensor, tail: Tail, q: Tensor, s: float, d: Tensor
) -> Tensor:
    r"""The effect on the log-density at a noise level s of a mean as large as is known or seen.

    The mean is at most the largest of the scale of the companion, that of the given data, and :math:`\Delta`
    with the gain that follows from the trace; its product with the noise is at most two standard deviations.
    """

    gain = (companion.gains(tail.u).mean(-1) + tail.trace / d).clamp(0, MOST)
    sizes = (
        companion.moments.variances.double().mean().sqrt().expand(len(data)),
        (data.detach().flatten(1).double().square().sum(1) / d).sqrt(),
        (tail.mean.flatten(1).double().square().sum(1) / d).sqrt() / (1 - gain),
    )
    ratio = torch.stack(sizes).amax(0) / s
    return 2 * d.sqrt() * ratio * q.sqrt().clamp(min=1) + d * ratio.square() / 2
