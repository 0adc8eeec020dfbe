r"""Numbers that follow from times and constants alone, kept from one run to the next.

Such are the coefficients of a solver's steps on a grid. Whoever computes them says by what they are known: runs
that agree in it share them.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

R = TypeVar("R")
MOST, LARGEST = 256, 4096  # entries, and numbers of a tensor by which one is known


class _Asked:
    r"""A function to call, which is equal to all others with its key."""

    def __init__(self, key: Hashable, make: Callable[[], object]) -> None:
        self.key, self.make = key, make

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.key == other.key


@lru_cache(maxsize=MOST)
def _made(asked: _Asked) -> object:
    try:
        return asked.make()
    finally:
        vars(asked).pop("make")  # with the objects that it refers to


def kept(make: Callable[[], R], *key: Hashable) -> R:
    r"""Returns what a function makes, which is the same as an earlier call with this key made.

    Arguments:
        make: The function. Nobody may change what it returns.
        key: What the result depends on. If a part is `None`, which is what :func:`told` says of numbers by which
            nothing is known, the function is called.
    """

    if None in key or torch.compiler.is_compiling():
        return make()
    return cast(R, _made(_Asked((*key, torch.is_inference_mode_enabled()), make)))


def told(*tensors: Tensor) -> Hashable | None:
    r"""Returns a key for the content of tensors.

    It is `None` if one has too many numbers, is on a device, or stands for several values in a transform of
    torch.func.
    """

    parts: list[Any] = []
    for tensor in tensors:
        plain = tensor.device.type == "cpu" and not is_functorch_wrapped_tensor(tensor)
        if not plain or tensor.numel() > LARGEST:
            return None
        parts += tensor.shape, tensor.detach().numpy().tobytes()
    return tuple(parts)


def like(x: Tensor) -> Hashable:
    r"""Returns a key for what factors of a state depend on."""

    return x.dtype, x.device, x.ndim
