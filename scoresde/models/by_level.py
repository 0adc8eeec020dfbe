r"""Numbers that may depend on the noise level, as functions of it."""

from collections.abc import Callable

import torch
from torch import Tensor

OfLevel = Callable[[Tensor], Tensor | float]  # of noise levels, in float64


def at_levels(
    name: str, function: OfLevel, levels: Tensor, *, least: float | None = None
) -> Tensor:
    r"""Returns the numbers of a function at noise levels, with the same shape, in float64.

    Arguments:
        name: What errors call the function.
        function: The function, which may return one number for all levels.
        levels: The noise levels :math:`\sigma / \alpha`, in float64.
        least: The smallest number that it may return. By default, it may return any.
    """

    numbers = function(levels)
    found = torch.as_tensor(numbers, dtype=torch.float64 if isinstance(numbers, float) else None)
    check_real(name, found, "return", found)
    found = found.double()
    if found.shape not in (torch.Size(), levels.shape):
        raise ValueError(
            f"{name} must return numbers of the shape of the noise levels, {tuple(levels.shape)}, not "
            f"{tuple(found.shape)}."
        )
    if not bool(found.isfinite().all()):
        raise ValueError(
            f"{name} must be finite at all noise levels, but its function returned NaN or infinity."
        )
    if least is not None and bool((found < least).any()):
        raise ValueError(
            f"{name} must be at least {least:g} at all noise levels, but its function returned "
            f"{found.min().item():g}."
        )
    return found.expand_as(levels)


def check_real(name: str, numbers: Tensor, verb: str, said: object) -> None:
    r"""Refuses complex numbers and Booleans."""

    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"{name} must {verb} real numbers, not {numbers.dtype}: {said!r}.")
