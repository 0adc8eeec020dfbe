r"""Labels of logarithmic axes, even of those that span few decades."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis

ENOUGH, ROOM = 4, 9  # labels: with fewer, nothing can be read off; more do not fit
LEADING = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # digits, from coarse to fine
PLAIN = (1e-4, 1e5)  # the range of powers of ten written without exponent


def logarithmic(low: float, high: float) -> list[float]:
    r"""Returns the tick labels of a logarithmic axis.

    They are powers of ten if there are enough of them, every other one if there are too many, and otherwise more
    of the numbers in between; on an axis that spans a small part of a decade, they are evenly spaced.

    Arguments:
        low: The lower end, positive.
        high: The upper end.
    """

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in LEADING:
        found = _within([digit * 10.0**power for power in powers for digit in digits], low, high)
        if len(found) >= ENOUGH:
            return found[:: math.ceil(len(found) / ROOM)]
    return _even(low, high)


def signed(low: float, high: float, threshold: float) -> list[float]:
    r"""Returns the tick labels of an axis that is linear near zero.

    Arguments:
        low: The lower end.
        high: The upper end.
        threshold: The size from which the axis is logarithmic, on both sides of zero.
    """

    if max(abs(low), abs(high)) <= 3 * threshold:
        return _even(low, high)
    most = max(abs(low), abs(high))
    powers = range(math.floor(math.log10(threshold)), math.ceil(math.log10(most)) + 1)
    for digits in LEADING:
        sizes = [digit * 10.0**power for power in powers for digit in digits]
        sizes = [size for size in sizes if size >= 0.99 * threshold]
        found = _within([*(-size for size in reversed(sizes)), 0.0, *sizes], low, high)
        if len(found) >= ENOUGH:
            break
    return found


def label_axis(axis: "Axis") -> None:
    r"""Writes tick labels on an axis, if it is logarithmic.

    Arguments:
        axis: A matplotlib axis of a complete figure.
    """

    from matplotlib import ticker
    from matplotlib.scale import SymmetricalLogTransform

    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() == "log":
        numbers = logarithmic(low, high)
    elif isinstance(change := axis.get_transform(), SymmetricalLogTransform):
        numbers = signed(low, high, change.linthresh)
    else:
        return
    axis.set_major_locator(ticker.FixedLocator(numbers))
    axis.set_major_formatter(ticker.FixedFormatter(_written(numbers)))
    axis.set_minor_formatter(ticker.NullFormatter())


def _written(numbers: Sequence[float]) -> list[str]:
    sizes = [abs(number) for number in numbers if number]
    if all(PLAIN[0] <= size < PLAIN[1] for size in sizes):
        return [f"{number:.4g}" for number in numbers]
    return [f"${_scientific(number)}$" for number in numbers]


def _scientific(number: float) -> str:
    if number == 0:
        return "0"
    digits, power = f"{number:.3e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    head = {"1": "", "-1": "-"}.get(digits, rf"{digits} \times ")
    return f"{head}10^{{{int(power)}}}"


def _within(numbers: Sequence[float], low: float, high: float) -> list[float]:
    least, most = low - 1e-9 * abs(low), high + 1e-9 * abs(high)
    return [number for number in numbers if least <= number <= most]


def _even(low: float, high: float) -> list[float]:
    from matplotlib import ticker

    numbers = ticker.MaxNLocator(ENOUGH + 2).tick_values(low, high)
    return _within([float(number) for number in numbers], low, high)
