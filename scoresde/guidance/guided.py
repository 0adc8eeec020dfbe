r"""The guided model: several models, and the rule that combines their denoised data."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.problem import StateField

from ..models.checks import check_alike
from ..models.conditions import Bound
from ..models.forms import data_form
from ..models.learned import check_learned
from ..models.masked import masked_of, refuse_mask
from ..models.score_model import ScoreModel
from ..models.times import check_time
from ..processes.process import Pair, Process
from .asked import Asked
from .rule import Guidance


@checked
class Guided(ScoreModel):
    r"""Creates a model from other models of the same process, by a rule.

    Arguments:
        models: The models. Facts about the data, such as its moments, are taken from the first.
        rule: The rule.

    Examples:
        >>> clipped = ss.guidance.thresholded(model, 0.25)
        >>> isinstance(clipped, ss.guidance.Guided), clipped.guided
        (True, True)
    """

    def __init__(self, models: Sequence[ScoreModel], rule: Guidance) -> None:
        super().__init__()
        if not models:
            raise ValueError("models must hold at least one model, but is empty.")
        first = models[0]
        for model in models:
            check_learned(model, f"the guidance {rule.words}")
        check_alike("models", models)
        for name, value in vars(rule).items():
            if isinstance(value, list | np.ndarray):
                raise TypeError(
                    f"{name} of {type(rule).__name__} must be a tensor, or a tuple of numbers that all "
                    f"samples share, but is a {type(value).__name__}."
                )
        if not (first.process.has_scales or rule.on_scores):
            what = "needs alpha and sigma" if first.process.has_levels else "acts on clean data"
            raise ValueError(
                f"the guidance {rule.words} {what}, which a {type(first.process).__name__} does not "
                "define; guide with a sum of scores, such as classifier_free, autoguidance, product, experts, "
                "within, mixture or classifier."
            )
        if any(model.carries_estimate for model in models):
            raise ValueError(
                "a guided model has one estimate, but a part of this one carries its own; guide first, as in "
                "ss.SelfConditioned(ss.classifier_free(model, 2.0, label=1))."
            )
        if rule.pools:
            refuse_mask(first, f"the guidance {rule.words}")
        rule.check(models)
        self.models, self.rule = torch.nn.ModuleList(models), rule
        self.resemble(first)
        self.process = _shared(models)
        self.cost = rule.cost([model.cost for model in models])
        self.guided = rule.changes or any(model.guided for model in models)
        self.differentiable = rule.smooth and all(model.differentiable for model in models)
        self.bound_names = tuple(dict.fromkeys(n for model in models for n in model.bound_names))
        free = dict.fromkeys(n for model in models for n in model.conditions)
        self.conditions = tuple(name for name in free if name not in self.bound_names)
        named = dict.fromkeys(model.fingerprint or type(model).__name__ for model in models)
        base, *others = named
        beside = f" with {', '.join(others)}" if others else ""
        self.fingerprint = f"{base} guided by {rule.words}{beside}"

    def __repr__(self) -> str:
        return f"{self.rule.words}({', '.join(map(repr, self.each))})"

    @property
    def each(self) -> list[ScoreModel]:
        r"""The models."""

        return list(self.models)  # type: ignore[arg-type]

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.rule.held

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return self.rule.parts(self.each)

    def part_levels(self, level: float) -> list[float]:
        return self.rule.part_levels(self.each, level)

    def rows(self, index: Tensor) -> ScoreModel:
        part = Guided([model.rows(index) for model in self.each], self.rule.rows(index))
        part.resemble(self)  # attributes set on it since
        part.process = self.process.rows(index)
        return part

    def take_condition(self, name: str, value: object) -> Bound:
        owner = next(model for model in self.each if name in model.accepts)
        return owner.take_condition(name, value)

    def check_condition(self, name: str, value: Tensor) -> None:
        for model in self.each:
            if name in model.accepts:
                model.check_condition(name, value)

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        if not self.process.has_levels:
            self.process.log_scales(check_time(self.process, t, x))  # raises: no clean data
        return self.in_form(data_form, x, t, condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        if self.process.has_levels:
            return super().score(x, t, **condition)
        return self.in_form(_formal_score, x, t, condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        fields = self.rule.bind(Asked(self.each, times, a, b, scale, x, condition))
        part = masked_of(self)
        return fields if part is None else part.padded(fields, times, a, b, scale, x)


def _shared(models: Sequence[ScoreModel]) -> Process:
    r"""The process that models share, with the conditions that any of them has given it."""

    process = models[0].process
    for other in models[1:]:
        for name, value in other.process.bound.items():
            if name in process.bound and not torch.equal(process.bound[name], value):
                raise ValueError(
                    f"{name} is a condition of the process, which all models share, so it must be the same for "
                    "all of them."
                )
        process = process.given(other.process.bound)
    return process


def _formal_score(process: Process, t: Tensor) -> Pair:
    r"""The score where there is no D: the sum of state and score, which stands for it, minus the state."""

    return -torch.ones_like(t), torch.ones_like(t)
