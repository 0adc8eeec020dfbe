r"""Numbers that must be positive, checked at the door."""

import math
from numbers import Real

from torch import Tensor


def positive(name: str, value: object, *, most: float = math.inf, zero: bool = False) -> float:
    r"""Returns a positive, finite number as a float.

    Arguments:
        name: What it is called.
        value: The number: Python's, NumPy's, or a tensor that holds one.
        most: The largest that makes sense.
        zero: Whether it may be 0.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not positive, not finite or too large.
    """

    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but is {value!r}.")
    number = float(value)
    if not (0 < number or (zero and number == 0)) or number > most or math.isinf(number):
        limit = "" if math.isinf(most) else f", at most {most:.4g}"
        kind = "not negative" if zero else "positive"
        raise ValueError(f"{name} must be {kind} and finite{limit}, but is {value}.")
    return number
