r"""Mistakes in words, and the line that mends them."""

import math
from collections.abc import Sequence

from ..adapters.foreign import Foreign, Label
from ..models.network import NetworkScore
from .meanings import Meaning, Reading

UNSURE = -0.15  # mean logarithm of the error, from which on a meaning is hardly known


def mistake(model: NetworkScore, best: Meaning, declared: Meaning) -> str:
    r"""Returns what a network means other than what was declared, and the line to write instead."""

    said = [
        *_call(best.reading, declared.reading),
        *_answer(best, declared),
    ]
    ratios = (
        f"its squared error is {math.exp(best.fit):.2g} times that of a linear denoiser then, and "
        f"{math.exp(declared.fit):.2g} times as declared"
    )
    lines = []
    if said:
        lines.append(f"write {line(model, best)}")
    if best.range != declared.range:
        said.append(f"it knows the data as {best.range.words}")
        lines.append(f"pass {best.range.words} in place of data")
    sure = "The network is not what it was said to be"
    if best.fit > UNSURE:
        sure += "; what fits best, though hardly better than a linear denoiser"
    return f"{sure}: {_joined(said)} ({ratios}). Instead, {_joined(lines)}."


def line(model: NetworkScore, meaning: Meaning) -> str:
    r"""Returns the line that declares a meaning."""

    reading, network = meaning.reading, model.network
    words = [f"network, {reading.written}, {meaning.predicts!r}"]
    if reading.label is not None:
        words.append(f"label={_label(reading)}")
    size = 1.0
    if isinstance(network, Foreign):
        size = abs(network.factor)
        words += [
            f"{name}={getattr(network, name)!r}"
            for name, default in (("order", "x, t"), ("names", None), ("entry", None))
            if getattr(network, name) != default
        ]
        words += [f"{name}={name}" for name in ("constants", "null") if getattr(network, name)]
    if meaning.sign * size != 1:
        words.append(f"factor={meaning.sign * size:g}")
    if model.conditions:
        words.append(f"conditions={list(model.conditions)!r}")
    if reading.data_std is not None:
        words.append(f"data_std={reading.data_std:g}")
    return f"ss.from_callable({', '.join(words)})"


def _label(reading: Reading) -> str:
    r"""A label as code."""

    label = reading.label
    if not isinstance(label, Label):
        return "label"
    if label.of == "t" and not label.offset:
        return f"{label.factor:.9g}"
    numbers = [f"{label.factor:.9g}", *([f"{label.offset:.9g}"] if label.offset else [])]
    given = [] if label.factor == 1 and not label.offset else numbers
    return f"ss.Label({', '.join([repr(label.of), *given])})"


def _call(best: Reading, declared: Reading) -> list[str]:
    found = []
    if best.process != declared.process:
        other = "the declared one" if declared.written == "model.process" else declared.written
        found.append(f"its noise is that of {best.written}, not of {other}")
    if best.label != declared.label:
        found.append(f"its time label is {_named(best)}, not {_named(declared)}")
    if best.data_std != declared.data_std and best.data_std and declared.data_std:
        found.append(f"its data_std is {best.data_std:g}, not {declared.data_std:g}")
    return found


def _answer(best: Meaning, declared: Meaning) -> list[str]:
    found = []
    if best.predicts != declared.predicts:
        found.append(f"it predicts {best.predicts!r}, not {declared.predicts!r}")
    if best.sign != declared.sign:
        found.append("its sign is flipped")
    return found


def _named(reading: Reading) -> str:
    r"""A label in words."""

    label = reading.label
    if label is None:
        return "t"
    if not isinstance(label, Label):
        return "the declared one"
    if label.factor < 0 < label.offset:
        size = "" if label.factor == -1 else f"{-label.factor:.6g} "
        return f"'{label.offset:.6g} - {size}{label.of.replace('_', ' ')}'"
    return f"'{label}'"


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
