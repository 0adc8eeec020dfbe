r"""Classifier-free guidance."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_interval
from ..models.conditions import Condition
from ..models.score_model import ScoreModel
from .affine import Affine
from .guided import Guided
from .scales import Scale, as_scale, scales_at

W = "; it is the w of (1 - w) D(x) + w D(x|c), so where s is meant in (1 + s) D(x|c) - s D(x), pass 1 + s"


@checked
def classifier_free(
    model: ScoreModel,
    scale: Scale,
    *,
    interval: tuple[float, float] | None = None,
    negative: Mapping[str, Condition] | None = None,
    **condition: Condition,
) -> ScoreModel:
    r"""Returns the model guided towards a condition: classifier-free guidance (CFG).

    .. math:: D(x \mid n) + w \, (D(x \mid c) - D(x \mid n))

    A scale of 0 ignores the condition c, and a scale of 1 is the conditional model; both cost one call, and
    other scales cost two. If a paper defines the scale :math:`s` by :math:`(1 + s) D(x \mid c) - s D(x)`, pass
    :math:`w = 1 + s`.

    Arguments:
        model: A score model that can also be called without the condition.
        scale: The scale :math:`w`: a number, one number per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales with the same shape.
        interval: The noise levels, the lower first, within which the model is guided. Outside, the scale
            is 1.
        negative: The condition :math:`n` to move away from, such as `{"label": label}`. By default, this is no
            condition.
        condition: The condition :math:`c`, with leading size B or 1.

    Raises:
        ValueError: If there is no condition, a scale is not finite, or the interval is not ascending.

    References:
        | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), equation (6)
        | https://arxiv.org/abs/2207.12598
        | Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
        | Models (Kynkaanniemi et al., 2024), equation (5)
        | https://arxiv.org/abs/2404.07724

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> guided = ss.classifier_free(pair, 3.0, label=torch.tensor([1]))
        >>> guided.denoise(torch.zeros(1, 1), torch.tensor([0.5]))  # 0 + 3 (0.5 - 0)
        tensor([[1.5000]])
    """

    if not condition:
        raise ValueError("classifier_free needs a condition, such as label=.")
    scale = as_scale("scale", scale, W)
    if interval is not None:
        check_interval(interval)
        interval = (float(interval[0]), float(interval[1]))
    if negative is not None and not isinstance(negative, Mapping):
        raise TypeError(
            f"negative must be a condition by name, as {{'label': label}}, not {negative!r}."
        )
    bound, away = model.given(**condition), model.given(**(negative or {}))
    if isinstance(scale, float | int) and scale == 1:
        return bound
    if isinstance(scale, float | int) and scale == 0 and interval is None:
        return away
    rule = ClassifierFreeFrom if negative else ClassifierFree
    return Guided((away, bound), rule(scale, interval))


@dataclass(frozen=True)
class ClassifierFree(Affine):
    r"""See :func:`classifier_free`."""

    scale: Scale
    interval: tuple[float, float] | None = None
    roles = ("unconditional", "conditional")

    def weights(self, levels: Tensor) -> Tensor:
        [w] = scales_at("scale", [self.scale], levels)
        if self.interval is not None:
            levels = levels[:, None] if w.ndim > levels.ndim else levels
            low, high = self.interval
            w = torch.where((levels >= low) & (levels <= high), w, 1.0)
        return towards(w)


class ClassifierFreeFrom(ClassifierFree):
    r"""The same from a negative condition."""

    roles = ("negative", "conditional")


def towards(w: Tensor) -> Tensor:
    r"""Returns the weights of two models, where w is that of the second."""

    return torch.stack([1 - w, w], -1)
