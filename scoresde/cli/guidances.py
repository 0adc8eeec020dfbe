r"""Guidance by name, as in "projected:scale=5:norm=2"; a bare number is the scale of classifier-free guidance."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from solvers.doors.settings import Setting, parsed

from .. import guidance
from ..guidance.noisy_classifier import Classifier
from ..models.checks import model_device
from ..models.score_model import ScoreModel
from ..zoo import load_classifier

Given = Mapping[str, Any]  # tensors by name, which pass as keywords beside options


def _classifier_free(
    model: ScoreModel,
    given: Given,
    scale: float,
    low: float = 0.0,
    high: float = math.inf,
    negative: float = math.nan,
) -> ScoreModel:
    interval = None if (low, high) == (0.0, math.inf) else (low, high)
    away = None if math.isnan(negative) else {"label": _whole("negative", negative)}
    return guidance.classifier_free(model, scale, interval=interval, negative=away, **given)


def _whole(name: str, number: float) -> Tensor:
    if number != int(number):
        raise ValueError(f"--guidance needs a whole number for {name}, a label, not {number:g}.")
    return torch.tensor([int(number)])


def _projected(
    model: ScoreModel, given: Given, scale: float, parallel: float = 0.0, norm: float = 0.0
) -> ScoreModel:
    bound = model.given(**given)
    return guidance.adaptive_projected(bound, model, scale, parallel=parallel, norm=norm)


def _zero_star(model: ScoreModel, given: Given, scale: float) -> ScoreModel:
    return guidance.zero_star(model.given(**given), model, scale)


def _rescaled(model: ScoreModel, given: Given, scale: float, share: float = 0.7) -> ScoreModel:
    guided = guidance.classifier_free(model, scale, **given)
    return guidance.rescaled(guided, model.given(**given), share)


def _thresholded(
    model: ScoreModel, given: Given, scale: float, limit: float = 1.0, quantile: float = 0.0
) -> ScoreModel:
    guided = guidance.classifier_free(model, scale, **given)
    return guidance.thresholded(guided, limit, quantile or None)


def _classifier(model: ScoreModel, given: Given, scale: float) -> ScoreModel:
    label, classifier = _label(given), _embedded(model, "_noisy")
    return guidance.classifier(model, classifier.log_prob, scale, label=label)


def _universal(
    model: ScoreModel, given: Given, scale: float, high: float = 10.0
) -> ScoreModel:  # above it, derivatives of networks are mostly errors
    loss = _embedded(model).loss
    return guidance.universal(model, loss, scale, max_level=high, label=_label(given))


def _feedback(model: ScoreModel, given: Given, share: float, limit: float = 10.0) -> ScoreModel:
    ratio = _embedded(model, "_noisy").log_ratio
    return guidance.feedback(model, ratio, share, limit=limit, label=_label(given))


def _label(given: Given) -> Tensor:
    r"""The label for the classifiers, after checking that no other conditions are given."""

    if set(given) != {"label"}:
        raise ValueError("guidance by the embedded classifiers takes only --label.")
    return given["label"]


def _embedded(model: ScoreModel, ending: str = "") -> Classifier:
    r"""The embedded classifier for a model's data."""

    name = getattr(model, "card", {}).get("name", "this model")
    try:
        return load_classifier(f"{name}{ending}", device=model_device(model))
    except FileNotFoundError:
        raise ValueError(
            f"there is no embedded classifier of {name}; use guidance.classifier with your own."
        ) from None


NAMES: dict[str, Callable[..., ScoreModel]] = {
    "classifier_free": _classifier_free,
    "projected": _projected,
    "zero_star": _zero_star,
    "rescaled": _rescaled,
    "thresholded": _thresholded,
    "classifier": _classifier,
    "universal": _universal,
    "feedback": _feedback,
}


EXAMPLES = {"scale": 3.0, "share": 0.8}


def guided(model: ScoreModel, given: Given, words: str | None) -> ScoreModel:
    r"""Returns the model with conditions bound, or guided towards them.

    Arguments:
        model: The model.
        given: The conditions by name.
        words: The name of a guidance and its settings, or a number.
    """

    for name in given:
        if name not in model.conditions:
            raise ValueError(
                f"the model takes no condition {name!r}; it takes: {', '.join(model.conditions) or 'none'}."
            )
    if words is None:
        return model.given(**given) if given else model
    if not given:
        raise ValueError("--guidance needs a condition: pass --label or --condition.")
    name, numbers = _parsed(words)
    takes = dict(list(inspect.signature(NAMES[name]).parameters.items())[2:])
    for option in numbers:
        if option not in takes:
            raise ValueError(f"--guidance {name} has no {option!r}; it takes {', '.join(takes)}.")
    for option, parameter in takes.items():
        if parameter.default is parameter.empty and option not in numbers:
            example = f"{name}:{option}={EXAMPLES[option]:g}"
            raise ValueError(f"--guidance {name} needs a {option}, as in {example!r}.")
    return NAMES[name](model, given, **numbers)


def _parsed(words: str) -> tuple[str, dict[str, float]]:
    name, settings = parsed(words)
    scale = Setting("scale", name)
    if not settings and scale.number() is not None:
        name, settings = "classifier_free", [scale]
    if name not in NAMES:
        raise ValueError(
            f"--guidance must be a number or one of {', '.join(NAMES)} with its numbers, as in "
            f"'projected:scale=5', but is {words!r}."
        )
    numbers = {}
    for setting in settings:
        value = setting.number()
        if value is None:
            raise ValueError(f"--guidance needs key=number after each ':', not {str(setting)!r}.")
        numbers[setting.key] = value
    return name, numbers
