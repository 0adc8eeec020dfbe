r"""Guidance by the difference of two predictions, each row by itself.

All are functions of the denoised data :math:`D_c` of the model asked for and :math:`D_u` of another: without the
condition, of a negative condition, or of a weaker model. With :math:`d = D_c - D_u`, plain guidance is
:math:`D_u + w \, d = D_c + (w - 1) \, d`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_finite
from ..models.score_model import ScoreModel
from .combined import Combined, Noisy, row_sum

Rule = Callable[[Tensor, Tensor], Tensor]  # from both predictions to the guided one
PAIR = ("conditional", "unconditional")


class _Extrapolated(Combined):
    def __init__(
        self, models: Sequence[ScoreModel], name: str, rule: Rule, roles: Sequence[str]
    ) -> None:
        super().__init__(models, name)
        self.rule, self.roles = rule, roles

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        return self.rule(*denoised)

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _Extrapolated(models, self.name, self.rule, self.roles)


@checked
def autoguidance(model: ScoreModel, weak: ScoreModel, scale: float) -> ScoreModel:
    r"""Returns the model guided by its difference from a weaker one.

    .. math:: D_{weak} + w \, (D - D_{weak})

    Arguments:
        model: The model, with its conditions bound.
        weak: The same less trained, or smaller, under the same conditions.
        scale: The scale :math:`w`. 1 is the model itself.

    References:
        | Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024), equation (5)
        | https://arxiv.org/abs/2406.02507
    """

    scale = check_finite("scale", scale)
    return _Extrapolated(
        (model, weak), f"autoguidance {scale:g}", _Plain(scale), ("strong", "weak")
    )


@checked
def adaptive_projected(
    model: ScoreModel, other: ScoreModel, scale: float, *, parallel: float = 0.0, norm: float = 0.0
) -> ScoreModel:
    r"""Returns the model guided by that part of the difference which does not only add contrast.

    .. math:: D_c + (w - 1) \, (d_\perp + \eta \, d_\parallel)

    with the difference d split along :math:`D_c`, and shortened to a norm before that, if one is given. The
    momentum of the paper, which needs what other steps did, is left out.

    Arguments:
        model: The model, with its conditions bound.
        other: The model without them.
        scale: The scale :math:`w`.
        parallel: The share :math:`\eta` of the parallel part; 1 is plain guidance.
        norm: The largest norm of the difference, over all entries of a sample; 0 for any.

    References:
        | Eliminating Oversaturation and Artifacts of High Guidance Scales (Sadat et al., 2024),
        | algorithm 1
        | https://arxiv.org/abs/2410.02416
    """

    scale, parallel = check_finite("scale", scale), check_finite("parallel", parallel)
    norm = check_finite("norm", norm)
    if norm < 0:
        raise ValueError(f"norm must be at least 0, but is {norm}.")
    name = f"projected guidance {scale:g}, parallel {parallel:g}, norm {norm:g}"
    return _Extrapolated((model, other), name, _Projected(scale, parallel, norm), PAIR)


@checked
def zero_star(model: ScoreModel, other: ScoreModel, scale: float) -> ScoreModel:
    r"""Returns the model guided as in CFG-Zero*: the other velocity is first scaled to fit.

    .. math:: (1 - w) \, \beta \, v_u + w \, v_c , \qquad \beta = \langle v_c, v_u \rangle / |v_u|^2 , \qquad
        v = (X - (1 + s) D) / s

    with the velocity of the rectified flow at the noise level s, whatever the process. That the paper leaves
    out the first steps, too, is a matter of the grid.

    Arguments:
        model: The model, with its conditions bound.
        other: The model without them.
        scale: The scale :math:`w`.

    References:
        | CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (Fan et al., 2025), section 4
        | https://arxiv.org/abs/2503.18886
    """

    scale = check_finite("scale", scale)
    return _ZeroStar((model, other), scale)


class _ZeroStar(Combined):
    def __init__(self, models: Sequence[ScoreModel], scale: float) -> None:
        super().__init__(models, f"zero-star guidance {scale:g}")
        self.scale, self.roles = scale, PAIR

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        x, level = noisy.x, noisy.level
        own, other = ((x - (1 + level) * D) / level for D in denoised)
        least = torch.finfo(torch.float64).tiny
        fit = (row_sum(own * other) / row_sum(other**2).clamp(min=least)).to(x)
        velocity = (1 - self.scale) * fit * other + self.scale * own
        return (x - level * velocity) / (1 + level)

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _ZeroStar(models, self.scale)


@checked
def rescaled(guided: ScoreModel, model: ScoreModel, share: float = 0.7) -> ScoreModel:
    r"""Returns a guided model whose denoised data has, in part, the standard deviation of the plain one's.

    .. math:: \Big( \varphi \, \frac{\operatorname{std} D_c}{\operatorname{std} D} + 1 - \varphi \Big) D

    Arguments:
        guided: The guided model.
        model: The model with its conditions bound, not guided.
        share: The share :math:`\varphi` in [0, 1].

    References:
        | Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), equation (15)
        | https://arxiv.org/abs/2305.08891
    """

    share = check_finite("share", share)
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], but is {share}.")
    return _Extrapolated(
        (guided, model), f"rescaled {share:g}", _Rescaled(share), ("before", "conditional")
    )


@dataclass(frozen=True)
class _Plain:
    scale: float

    def __call__(self, D: Tensor, other: Tensor) -> Tensor:
        return other + self.scale * (D - other)


@dataclass(frozen=True)
class _Projected:
    scale: float
    parallel: float
    norm: float

    def __call__(self, D: Tensor, other: Tensor) -> Tensor:
        d = (D - other).double()
        if self.norm:
            d = d * (self.norm / row_sum(d**2).sqrt().clamp(min=self.norm))
        wide = D.double()
        along = (
            row_sum(d * wide) / row_sum(wide**2).clamp(min=torch.finfo(torch.float64).tiny) * wide
        )
        change = d - (1 - self.parallel) * along
        return D + ((self.scale - 1) * change).to(D)


@dataclass(frozen=True)
class _Rescaled:
    share: float

    def __call__(self, guided: Tensor, D: Tensor) -> Tensor:
        spread = [value.double().flatten(1).std(1, correction=0) for value in (D, guided)]
        ratio = torch.where(spread[1] > 0, spread[0] / spread[1], 1.0)
        factor = self.share * ratio + 1 - self.share
        return factor.to(guided).reshape(-1, *(1,) * (guided.ndim - 1)) * guided
