r"""Names of rules and functions in messages, fingerprints and plots."""

import re
from collections.abc import Sequence

import torch


def title(function: object) -> str:
    r"""Returns the name of a function."""

    named = getattr(function, "title", None)
    if isinstance(named, str):  # of a wrapper
        return named
    return getattr(function, "__qualname__", type(function).__name__)


def told(value: object) -> str:
    r"""Returns numbers, or the name of a function, as text; data and `None` have none."""

    if isinstance(value, torch.Tensor):
        return "" if value.ndim else f"{value.item():g}"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(told, value)))
    return title(value) if callable(value) else ""


def words_of(kind: type, settings: Sequence[tuple[str, str]]) -> str:
    r"""Returns the name of a rule: the words of its class, its first setting, and others with their names."""

    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    own = [text if i == 0 else f"{name} {text}" for i, (name, text) in enumerate(settings)]
    return f"{name} {', '.join(own)}".strip()
