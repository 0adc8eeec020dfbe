r"""Guidance by name, as in "projected:scale=5:norm=2"; a bare number is a scale of classifier-free guidance."""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import guidance
from ..models import ScoreModel


def _classifier_free(
    model: ScoreModel, label: Tensor, scale: float, low: float = 0.0, high: float = math.inf
) -> ScoreModel:
    interval = None if (low, high) == (0.0, math.inf) else (low, high)
    return guidance.classifier_free(model, scale, interval=interval, label=label)


def _projected(
    model: ScoreModel, label: Tensor, scale: float, parallel: float = 0.0, norm: float = 0.0
) -> ScoreModel:
    bound = model.given(label=label)
    return guidance.adaptive_projected(bound, model, scale, parallel=parallel, norm=norm)


def _zero_star(model: ScoreModel, label: Tensor, scale: float) -> ScoreModel:
    return guidance.zero_star(model.given(label=label), model, scale)


def _rescaled(model: ScoreModel, label: Tensor, scale: float, share: float = 0.7) -> ScoreModel:
    guided = guidance.classifier_free(model, scale, label=label)
    return guidance.rescaled(guided, model.given(label=label), share)


def _thresholded(
    model: ScoreModel, label: Tensor, scale: float, limit: float = 1.0, quantile: float = 0.0
) -> ScoreModel:
    guided = guidance.classifier_free(model, scale, label=label)
    return guidance.thresholded(guided, limit, quantile or None)


NAMES: dict[str, Callable[..., ScoreModel]] = {
    "classifier_free": _classifier_free,
    "projected": _projected,
    "zero_star": _zero_star,
    "rescaled": _rescaled,
    "thresholded": _thresholded,
}


def guided(model: ScoreModel, label: int | Tensor | None, words: str | None) -> ScoreModel:
    r"""Returns the model with a label bound, or guided towards it.

    Arguments:
        model: The model.
        label: The label, or one per sample.
        words: The name of a guidance and its numbers, or a number.
    """

    known = None if label is None else torch.as_tensor(label)
    if words is None:
        return model if known is None else model.given(label=known)
    if known is None:
        raise ValueError("--guidance needs a condition: pass --label.")
    name, numbers = _parsed(words)
    takes = list(inspect.signature(NAMES[name]).parameters)[2:]
    for option in numbers:
        if option not in takes:
            raise ValueError(f"--guidance {name} has no {option!r}; it takes {', '.join(takes)}.")
    if "scale" not in numbers:
        raise ValueError(f"--guidance {name} needs a scale, as in '{name}:scale=3'.")
    return NAMES[name](model, known, **numbers)


def _parsed(words: str) -> tuple[str, dict[str, float]]:
    name, *options = words.split(":")
    if not options and _number(name) is not None:
        name, options = "classifier_free", [f"scale={name}"]
    if name not in NAMES:
        raise ValueError(
            f"--guidance must be a number or one of {', '.join(NAMES)} with its numbers, as in "
            f"'projected:scale=5', but is {words!r}."
        )
    numbers = {}
    for option in options:
        key, _, text = option.partition("=")
        value = _number(text)
        if value is None:
            raise ValueError(f"--guidance wants key=number after each ':', not {option!r}.")
        numbers[key] = value
    return name, numbers


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
