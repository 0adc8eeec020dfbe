r"""The settings of solvers, and the ranges in which a method deserves its name."""

import math
from collections.abc import Callable

from .doors.values import as_number

REPEATS = 10_000  # of the change that a step makes
Range = tuple[Callable[[float], bool], str]
SETTINGS: dict[str, Range] = {
    "amount": (lambda v: 0 <= v < math.inf, "a finite number >= 0"),
    "low": (lambda v: 0 <= v < math.inf, "a finite number >= 0"),
    "high": (lambda v: v >= 0, "a number >= 0"),
    "noise": (lambda v: 0 <= v <= 10, "in [0, 10]"),
    "corrections": (lambda v: 1 <= v <= REPEATS, f"in [1, {REPEATS}]"),
    "ratio": (lambda v: 0 < v < 1, "between 0 and 1"),
    "repeats": (lambda v: 1 <= v <= REPEATS, f"at least 1 and at most {REPEATS}"),
    "tau": (lambda v: 0 < v < 2, "between 0 and 2"),
    "iterations": (lambda v: 1 <= v <= REPEATS, f"in [1, {REPEATS}]"),
    "depth": (lambda v: 0 <= v <= REPEATS, f"in [0, {REPEATS}]"),
    "average": (lambda v: 1 <= v <= REPEATS, f"in [1, {REPEATS}]"),
    "mix": (lambda v: 0.5 < v <= 1, "in (1/2, 1]"),
    "block": (lambda v: 0 <= v <= REPEATS, f"in [0, {REPEATS}]"),
    "values": (
        lambda v: isinstance(v, int) and 1 <= v <= 4,
        "a whole number in [1, 4]",
    ),  # more never help
    "highest": (lambda v: isinstance(v, int) and 1 <= v <= 20, "a whole number in [1, 20]"),
}


def check_settings(solver: object) -> None:
    r"""Refuses settings outside the range in which a method deserves its name."""

    for name, (fits, words) in SETTINGS.items():
        where = f"{name} of {str(solver).split(':')[0]}"
        value = as_number(where, vars(solver).get(name))
        if value is not None and not fits(value):
            raise ValueError(f"{where} must be {words}, but is {value:.7g}.")
