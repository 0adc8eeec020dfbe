r"""Numbers that may depend on the noise level, as functions of it."""

from collections.abc import Callable

import torch
from torch import Tensor

OF_ONE = (
    "Boolean value of Tensor",
    "cannot be converted to Scalar",
    "only one element",
    "only length-1",
)
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

    found = _numbers(name, function, levels)
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


def _numbers(name: str, function: OfLevel, levels: Tensor) -> Tensor:
    r"""What a function returns at noise levels, as a tensor."""

    try:
        numbers = function(levels)
    except (RuntimeError, TypeError, ValueError) as error:
        if not any(words in str(error) for words in OF_ONE):
            raise
        raise ValueError(
            f"{name} is called with a tensor of noise levels, here {levels.numel()} of them, so its function must "
            f"take tensors, as in torch.where(level > 1, 2.0, 0.0), and not numbers alone ({error})."
        ) from error
    try:
        return torch.as_tensor(
            numbers, dtype=torch.float64 if isinstance(numbers, float) else None
        )
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(
            f"{name} must return numbers, but its function returned {numbers!r}."
        ) from None


def check_real(name: str, numbers: Tensor, verb: str, said: object) -> None:
    r"""Refuses complex numbers and Booleans."""

    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"{name} must {verb} real numbers, not {numbers.dtype}: {said!r}.")
