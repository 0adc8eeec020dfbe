r"""Checks of numbers that must be positive."""

import math

from solvers.doors.values import as_number


def positive(name: str, value: object, *, most: float = math.inf, zero: bool = False) -> float:
    r"""Returns a positive, finite number as a float.

    Arguments:
        name: The name of the argument.
        value: The number, of Python or NumPy, or in a tensor.
        most: The largest accepted value.
        zero: Whether it may be 0.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive, not finite or too large.
    """

    if value is None:
        raise TypeError(f"{name} must be a number, but is None.")
    number = value if type(value) is float else float(as_number(name, value))  # type: ignore[arg-type]
    if not (0 < number or (zero and number == 0)) or number > most or math.isinf(number):
        limit = "" if math.isinf(most) else f", at most {most:.4g}"
        kind = "not negative" if zero else "positive"
        raise ValueError(f"{name} must be {kind} and finite{limit}, but is {value}.")
    return number
