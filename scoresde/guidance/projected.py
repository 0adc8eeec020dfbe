r"""Guidance by the difference of two predictions that is not a sum with fixed weights.

All are functions, separate for each row, of the denoised data :math:`D_c` of the wanted model and :math:`D_u` of
another one: without the condition, with a negative condition, or of a weaker model. With :math:`d = D_c - D_u`,
plain guidance is :math:`D_u + w \, d = D_c + (w - 1) \, d`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import align, row_sum

from ..models.checks import check_finite
from ..models.score_model import ScoreModel
from .asked import Noisy
from .guided import Guided
from .rule import Rule
from .scales import Scale, as_scale, factor

TINY = torch.finfo(torch.float64).tiny
PAIR = ("conditional", "unconditional")


@checked
def adaptive_projected(
    model: ScoreModel, other: ScoreModel, scale: Scale, *, parallel: float = 0.0, norm: float = 0.0
) -> ScoreModel:
    r"""Returns the model under adaptive projected guidance (APG), which damps the part that only adds contrast.

    .. math:: D_c + (w - 1) \, (d_\perp + \eta \, d_\parallel)

    with the difference d split into parts orthogonal and parallel to :math:`D_c`, after it is shortened to
    `norm`, if that is given. The paper's momentum, which needs the results of other steps, is left out.

    Arguments:
        model: The model, with its conditions bound.
        other: The model without these conditions.
        scale: The scale :math:`w`: a number, one number per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales with the same shape.
        parallel: The factor :math:`\eta` of the parallel part; 1 is plain guidance.
        norm: The largest norm of the difference, over all entries of a sample; 0 for no limit.

    Raises:
        ValueError: If `norm` is negative.

    References:
        | Eliminating Oversaturation and Artifacts of High Guidance Scales (Sadat et al., 2024),
        | algorithm 1
        | https://arxiv.org/abs/2410.02416

    Examples:
        >>> wide = ss.GaussianOracle(torch.zeros(2), 1.0)  # its difference is parallel, and left out
        >>> guided = ss.guidance.adaptive_projected(model, wide, 3.0)
        >>> guided.denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[0.5000, 0.5000]])
    """

    scale = as_scale("scale", scale)
    parallel, norm = check_finite("parallel", parallel), check_finite("norm", norm)
    if norm < 0:
        raise ValueError(f"norm must be at least 0, but is {norm}.")
    return Guided((model, other), Projected(scale, parallel, norm))


@dataclass(frozen=True)
class Projected(Rule):
    r"""See :func:`adaptive_projected`."""

    scale: Scale
    parallel: float
    norm: float
    roles = PAIR

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        D, other = denoised
        d, wide = (D - other).double(), D.double()
        if self.norm:
            d = d * (self.norm / row_sum(d**2).sqrt().clamp(min=self.norm))
        along = row_sum(d * wide) / row_sum(wide**2).clamp(min=TINY) * wide
        change = d - (1 - self.parallel) * along
        w = factor("scale", self.scale, noisy.level, noisy.x)
        return D + ((w - 1) * change).to(D)


@checked
def zero_star(model: ScoreModel, other: ScoreModel, scale: Scale) -> ScoreModel:
    r"""Returns the model guided as in CFG-Zero*, which first scales the other velocity to fit.

    .. math:: (1 - w) \, \beta \, v_u + w \, v_c , \qquad \beta = \langle v_c, v_u \rangle / |v_u|^2 , \qquad
        v = (X - (1 + s) D) / s

    with the velocity of the rectified flow at the noise level s, whatever the process. The paper also skips the
    first steps, which is a choice of grid.

    Arguments:
        model: The model, with its conditions bound.
        other: The model without these conditions.
        scale: The scale :math:`w`: a number, one number per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales with the same shape.

    References:
        | CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (Fan et al., 2025), section 4
        | https://arxiv.org/abs/2503.18886

    Examples:
        >>> wide = ss.GaussianOracle(torch.zeros(2), 1.0)  # its velocity, fitted, is that of the model
        >>> guided = ss.guidance.zero_star(model, wide, 3.0)
        >>> [round(value, 4) for value in guided.denoise(torch.ones(1, 2), torch.tensor([0.5]))[0].tolist()]
        [0.5, 0.5]
    """

    return Guided((model, other), ZeroStar(as_scale("scale", scale)))


@dataclass(frozen=True)
class ZeroStar(Rule):
    r"""See :func:`zero_star`."""

    scale: Scale
    roles = PAIR

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        x, level = noisy.x, noisy.level
        own, other = ((x - (1 + level) * D) / level for D in denoised)
        fit = (row_sum(own * other) / row_sum(other**2).clamp(min=TINY)).to(x)
        w = factor("scale", self.scale, level, x)
        velocity = (1 - w) * fit * other + w * own
        return (x - level * velocity) / (1 + level)


@checked
def rescaled(guided: ScoreModel, model: ScoreModel, share: float = 0.7) -> ScoreModel:
    r"""Returns a guided model with the standard deviation of its denoised data rescaled towards the plain
    model's.

    .. math:: \Big( \varphi \, \frac{\operatorname{std} D_c}{\operatorname{std} D} + 1 - \varphi \Big) D

    Arguments:
        guided: The guided model.
        model: The model without guidance, with its conditions bound.
        share: The fraction :math:`\varphi` in [0, 1].

    Raises:
        ValueError: If `share` is not in [0, 1].

    References:
        | Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), equation (15)
        | https://arxiv.org/abs/2305.08891

    Examples:
        >>> wide = ss.GaussianOracle(torch.zeros(2), 1.0)
        >>> guided = ss.guidance.rescaled(wide, model, 1.0)
        >>> guided.denoise(torch.tensor([[1.0, -1.0]]), torch.tensor([0.5]))
        tensor([[ 0.5000, -0.5000]])
    """

    share = check_finite("share", share)
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], but is {share}.")
    return Guided((guided, model), Rescaled(share))


@dataclass(frozen=True)
class Rescaled(Rule):
    r"""See :func:`rescaled`."""

    share: float
    roles = ("before", "conditional")
    pools = True

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        guided, plain = (D.double().flatten(1).std(1, correction=0) for D in denoised)
        ratio = torch.where(guided > 0, plain / guided, 1.0)
        factor = (self.share * ratio + 1 - self.share).to(denoised[0])
        return align(factor, denoised[0]) * denoised[0]
