r"""How far the prior is from where noisy data ends.

At the last noise level :math:`s = e^u` the companion, a Gaussian with the moments that are known, is compared with
the prior. The data of a model under a condition, or of one whose moments are not known, is elsewhere: where the
model denoises to :math:`D = D_G + r` and not to the :math:`D_G` of the companion. For a Gaussian of another mean,
by :math:`\Delta = (I - G)^{-1} r`, the log-density is that of the companion and

.. math:: \frac{\Delta \cdot (y - D_G)}{s^2} - \frac{\Delta \cdot r}{2 s^2} .

Another covariance moves the trace of the Jacobian too, by :math:`\tau`, which tells its part: it adds
:math:`q \tau` to the product above with :math:`q = |y|^2 / (d s^2)`, and :math:`(q - 1) \tau / 2` to the
log-density, up to some :math:`\tau` where directions differ.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..processes.process import Process
from .companion import Companion

MOST = 0.9  # gain of data whose mean is asked for, since it tells less and less of it
MARGIN = 0.1  # of what the model's own mean does, which data that is no Gaussian may change


class Tail(NamedTuple):
    r"""What the last node tells of where data is.

    Arguments:
        u: The logarithm of its noise level, with shape (B,).
        mean: The mean :math:`\Delta` beyond the companion's, with shape (B, *).
        trace: The trace :math:`\tau` beyond the companion's, with shape (B,).
    """

    u: Tensor
    mean: Tensor
    trace: Tensor

    @staticmethod
    def of(companion: Companion, y: Tensor, u: Tensor, denoised: Tensor, trace: Tensor) -> "Tail":
        r"""Returns what the model beyond the companion does with states y."""

        rest = companion.split((denoised - companion.denoise(y, u)).detach()[None])
        return Tail(u, companion.directions(rest / (1 - companion.gains(u)))[0], trace.detach())


def prior_gap(
    process: Process, companion: Companion, x: Tensor, tail: Tail, data: Tensor
) -> Tensor:
    r"""Returns by how much the log-density of noisy data differs from the prior's, with shape (B,).

    Arguments:
        process: The process.
        companion: The Gaussian companion.
        x: The states at `t_max`, with shape (B, *).
        tail: What the last node tells.
        data: The data, with shape (B, *).
    """

    end = torch.tensor(process.t_max, dtype=torch.float64)
    alpha, u = float(process.scales(end)[0]), -process.log_snr(end)
    y, s = x / alpha, math.exp(float(u))
    d = x[0].numel()
    known = companion.log_prob(y, float(u)) - process.prior_log_prob(x) - d * math.log(alpha)
    denoised = companion.denoise(y, u.expand(len(y)))
    apart, mean = ((value / s).flatten(1).double() for value in (y - denoised, tail.mean))
    shift = (mean * apart).sum(1) - mean.square().sum(1) / 2
    nearer = torch.exp(tail.u - u.to(tail.u.device))  # what it tells is of a lower noise level
    q = (y / s).flatten(1).double().square().mean(1)
    other = tail.trace * nearer * ((q - 1) / 2 * nearer - q)
    gap = (known + shift + other).abs() + MARGIN * shift.abs() + (tail.trace * nearer).abs()
    if companion.known:
        return gap
    return torch.maximum(gap, _loose_gap(companion, data, tail, q, s))


def _loose_gap(companion: Companion, data: Tensor, tail: Tail, q: Tensor, s: float) -> Tensor:
    r"""What data of any mean, as large as is known or seen, does to the log-density at a noise level s.

    Its mean is at most the larger of the size of the companion, that of the data in hand, and :math:`\Delta`
    with the gain that the trace tells, and its product with the noise twice a standard deviation.
    """

    d = data[0].numel()
    gain = (companion.gains(tail.u).mean(-1) + tail.trace / d).clamp(0, MOST)
    sizes = (
        companion.moments.variances.double().mean().sqrt().expand(len(data)),
        data.detach().flatten(1).double().square().mean(1).sqrt(),
        tail.mean.flatten(1).double().square().mean(1).sqrt() / (1 - gain),
    )
    ratio = torch.stack(sizes).amax(0) / s
    return 2 * math.sqrt(d) * ratio * q.sqrt().clamp(min=1) + d * ratio.square() / 2
