r"""Stochastic interpolants: paths between two data sets with a noise of their own."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.noise.brownian import FRESH, keyed_normal
from solvers.shapes import align

from ..doors.amounts import positive
from ..models.estimate import noise_estimate
from ..models.score_model import ScoreModel
from ..processes.process import Pair, Process
from .noised import mean_square, noised

Amount = Callable[[Tensor], Tensor]
EVEN = math.sqrt(2)  # with which the own noise of a linear path is sqrt(2 t (1 - t))


@checked
def interpolant(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    gamma: float | Amount = EVEN,
    target: Literal["velocity", "noise"] = "velocity",
    seed: int = 0,
    **condition: Tensor,
) -> Tensor:
    r"""Returns the squared error of the velocity or of the noise of a stochastic interpolant, with shape (B,).

    .. math:: x_t = \alpha x + \sigma z + \gamma w , \qquad w \sim \mathcal{N}(0, I)

    The minimisers of its two targets,

    .. math:: b = \mathbb{E}[\dot \alpha x + \dot \sigma z + \dot \gamma w \mid x_t] , \qquad
        \eta = \mathbb{E}[w \mid x_t] ,

    are the velocity of a flow between the laws of z and x, and the score :math:`-\eta / \gamma` of :math:`x_t`,
    with which any amount of noise can be added on the way: :math:`b - \epsilon \eta / \gamma` is the drift
    towards larger times with the diffusion :math:`\sqrt{2 \epsilon}`, and :math:`b + \epsilon \eta / \gamma`
    that towards data.

    Arguments:
        model: The model. The velocity is `model.velocity`, so `predicts="velocity"` and `learned="bridge"` fit;
            for the noise, `model.noise` stands for :math:`\eta`, so `predicts="noise"` does.
        x: Data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: The other end: data with the shape of `x`, paired or not.
        gamma: The own noise: a differentiable function of the times, with their shape, or a number a for
            :math:`\gamma = a \sqrt{\alpha \sigma}`. By default, :math:`a = \sqrt 2`.
        target: What is learned, "velocity" or "noise".
        seed: The seed of the own noise. Give each training step another one.
        condition: The conditions.

    References:
        | Stochastic Interpolants: A Unifying Framework for Flows and Diffusions (Albergo et al., 2023),
        | theorems 6 and 8
        | https://arxiv.org/abs/2303.08797

    Examples:
        >>> still = ss.NetworkScore(lambda x, t: 0 * x, ss.Interpolant(), "velocity", learned="bridge")
        >>> x, z = torch.zeros(1, 2), torch.ones(1, 2)
        >>> ss.losses.interpolant(still, x, torch.zeros(1), z, gamma=lambda t: 0 * t)  # |z - x|^2 / 2
        tensor([1.])
    """

    known = noised(model, x, log_snr, z, condition)
    process, d = model.process, known.x[0].numel()
    rows = torch.arange(len(known.x), device=known.x.device)
    w = keyed_normal(seed, rows, FRESH, 0, d).to(known.x).reshape(known.x.shape)
    amount, rate = (align(v.to(w), w) for v in _amount(gamma, process, known.t))
    state = known.state + amount * w
    if target == "noise":
        return mean_square(noise_estimate(model, state, known.t, **known.condition) - w)
    alpha, sigma = (align(v.to(w), w) for v in scale_rates(process, known.t))
    moved = alpha * known.x + sigma * known.z + rate * w
    return mean_square(model.velocity(state, known.t, **known.condition) - moved)


def scale_rates(process: Process, t: Tensor) -> Pair:
    r"""Returns the derivatives of the scales :math:`\alpha` and :math:`\sigma` by time, with the shape of `t`."""

    (alpha, sigma), (f, slope) = process.scales(t), process.rates(t)
    return f * alpha, (f - slope) * sigma


def _amount(gamma: float | Amount, process: Process, t: Tensor) -> Pair:
    r"""The amount of own noise and its derivative, with the shape of `t`, in float64."""

    if not callable(gamma):
        (alpha, sigma), (f, slope) = process.scales(t), process.rates(t)
        amount = positive("gamma", gamma, zero=True) * (alpha * sigma).sqrt()
        return amount, amount * (f - slope / 2)
    with torch.enable_grad():
        leaf = t.detach().clone().requires_grad_()
        amount = gamma(leaf)
        if not isinstance(amount, Tensor) or amount.shape != t.shape:
            raise TypeError(
                f"gamma must return one number per time, with shape {tuple(t.shape)}, but returned {amount!r}."
            )
        rate = torch.zeros_like(t)
        if amount.requires_grad:
            [rate] = torch.autograd.grad(amount.sum(), leaf)
    amount = amount.detach()
    if not bool((amount >= 0).all() and amount.isfinite().all() and rate.isfinite().all()):
        raise ValueError(
            "gamma must be finite and not negative, with a finite derivative, at all times of the levels."
        )
    return amount, rate
