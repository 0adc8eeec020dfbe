r"""Classifier-free guidance."""

import math
from collections.abc import Sequence

from torch import Tensor

from solvers.problem import StateField

from ..conditions import check_conditions, rows_of
from ..models import ScoreModel


def classifier_free(model: ScoreModel, scale: float, **condition: Tensor) -> ScoreModel:
    r"""Returns the model guided towards a condition.

    .. math:: D(x) + w \, (D(x \mid c) - D(x))

    A scale of 0 ignores the condition and 1 follows the model: both cost one call. Others cost
    two. Where the scale is said to be :math:`s` in :math:`(1 + s) D(x \mid c) - s D(x)`, pass
    :math:`w = 1 + s`.

    Arguments:
        model: A score model that also answers without the condition.
        scale: The scale :math:`w`.
        condition: The condition :math:`c`, with leading size B or 1.

    Raises:
        ValueError: If there is no condition, or the scale is not finite.

    References:
        | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), equation (6)
        | https://arxiv.org/abs/2207.12598
    """

    if not condition:
        raise ValueError("classifier_free needs a condition, such as label=.")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number, but is {scale}.")
    if scale == 0:
        return model
    if scale == 1:
        return model.given(**condition)
    return _ClassifierFree(model, scale, check_conditions(model, condition, None))


class _ClassifierFree(ScoreModel):
    def __init__(self, model: ScoreModel, scale: float, bound: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self.scale, self.bound = model, scale, bound
        self.bound_model = model.given(**bound)
        self.resemble(model)
        self.guided = True
        self.conditions = tuple(name for name in model.conditions if name not in bound)
        self.cost, self.bound_names = 2 * model.cost, (*model.bound_names, *bound)
        self.fingerprint = f"{model.fingerprint or type(model).__name__} guided by {scale:g}"

    def __repr__(self) -> str:
        return f"classifier_free({self.model!r}, {self.scale:g}, {', '.join(self.bound)})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        free = self.model.denoise(x, t, **condition)
        return free + self.scale * (self.bound_model.denoise(x, t, **condition) - free)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        free = self.model.combine(times, a, (1 - self.scale) * b, scale, x, **condition)
        bound = self.bound_model.combine(times, 0 * a, self.scale * b, scale, x, **condition)
        return [_sum(f, g) for f, g in zip(free, bound, strict=True)]

    def rows(self, index: Tensor) -> ScoreModel:
        return _ClassifierFree(self.model.rows(index), self.scale, rows_of(self.bound, index))


def _sum(f: StateField, g: StateField) -> StateField:
    return lambda x: f(x) + g(x)
