r"""Argument checks for numbers, data and devices, whatever library they come from.

Each check returns the value in the form that the packages compute with, or refuses it in one sentence.
"""

import math
import numbers
import os
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
Shape: TypeAlias = tuple[int, ...] | list[int] | np.ndarray | Tensor
Array: TypeAlias = (  # of one shape, in what the doors take
    Tensor | np.ndarray | Sequence[float | Sequence[float] | Tensor | np.ndarray]
)
WORD = 2**63  # whole numbers lie in [-WORD, WORD)
MOST = 10**6  # steps, repeats and the like in one run
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
         torch.int8, torch.int16, torch.int32, torch.int64)  # fmt: skip
FAULTS: tuple[tuple[Callable[[Tensor], bool], str], ...] = (
    (lambda x: x.is_nested, "all of one shape, but is nested; pass x.to_padded_tensor(0.0)"),
    (lambda x: x.layout != torch.strided, "dense, but is {x.layout}; pass x.to_dense()"),
    (lambda x: x.is_quantized, "plain numbers, but is quantised; pass x.dequantize()"),
    (lambda x: x.is_meta, "numbers, but is on the device meta, which holds none"),
    (lambda x: x.is_complex(), "real, but is {x.dtype}; pass torch.view_as_real(x)"),
    (lambda x: x.dtype not in FLOATING + WHOLE,
     "of a dtype that supports arithmetic, not {x.dtype}; pass x.float()"),
)  # fmt: skip


def as_number(name: str, value: T) -> T:
    r"""Returns a number as a Python number; `None` means that none was passed.

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it is too large for double precision.
    """

    if value is None or type(value) is float:
        return value
    plain = _scalar(value)
    if not is_number(value):
        raise TypeError(f"{name} must be a number, but is {shown(value)}.")
    try:
        real = float(cast(float, plain))
    except OverflowError:
        raise ValueError(f"{name} must be below 1.8e308, but is a number beyond it.") from None
    return cast(T, plain if isinstance(plain, int) and abs(plain) < WORD else real)


def as_whole(name: str, value: T, at_least: int | None = None, at_most: int | None = None) -> T:
    r"""Returns a whole number as a Python int; `None` means that none was passed.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is out of range, or beyond 64 bits.
    """

    if value is None:
        return value
    plain = value if type(value) is int else _scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, int | numbers.Integral):
        raise TypeError(f"{name} must be a whole number, but is {shown(value)}.")
    whole = int(plain)
    if at_least is not None and whole < at_least:
        raise ValueError(f"{name} must be at least {at_least}, but is {whole}.")
    if not -WORD <= whole < WORD:
        raise ValueError(f"{name} must fit into 64 bits, but is {whole:.4e}.")
    if at_most is not None and whole > at_most:
        raise ValueError(f"{name} must be at most {at_most}, but is {whole}.")
    return cast(T, whole)


def is_number(value: object) -> bool:
    r"""Whether a value is a real number, of whatever library."""

    plain = _scalar(value)
    return isinstance(plain, numbers.Real) and not isinstance(plain, bool)


def as_tensor(name: str, value: object, dtype: torch.dtype | None = None) -> Tensor:
    r"""Returns data as a dense tensor of real numbers, of the given dtype; arrays and lists become tensors.

    Raises:
        TypeError: If it holds no numbers, or numbers of a kind that is not supported here.
        ValueError: If the lists inside a list differ in length.
    """

    x = value if isinstance(value, Tensor) else _converted(name, value, dtype)
    plain = x.dtype in FLOATING and x.layout == torch.strided and not x.is_meta and not x.is_nested
    for is_so, words in () if plain else FAULTS:
        if is_so(x):
            raise TypeError(f"{name} must be {words.format(x=x)}.")
    return x if dtype is None else x.to(dtype)


def as_shape(
    name: str, value: object, device: torch.device | str | None = None
) -> tuple[int, ...]:
    r"""Returns a shape (B, *) of positive whole numbers that fits into memory.

    Raises:
        TypeError: If it is not a shape.
        ValueError: If a size is not positive, or the shape does not fit into memory.
    """

    sizes = value.tolist() if isinstance(value, np.ndarray | Tensor) and value.ndim else value
    if not isinstance(sizes, tuple | list):
        raise TypeError(f"{name} must be a whole number or a shape (B, *), but is {shown(value)}.")
    shape = tuple([size if type(size) is int else _size(size) for size in sizes])
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(
            f"{name} must be a shape (B, *) of positive whole numbers, but is {sizes}."
        )
    size, most = 8 * math.prod(shape), _memory(device)
    if size > most:
        raise ValueError(
            f"{name} of {shape} takes {size / 2**30:.3g} GiB in float64, but the device has {most / 2**30:.3g}; "
            "draw fewer samples at once, and the others with first_index=."
        )
    return shape


def _size(value: object) -> int:
    plain = _scalar(value)
    return int(plain) if isinstance(plain, int) and not isinstance(plain, bool) else 0


def _memory(device: torch.device | str | None) -> int:
    r"""The memory of a device in bytes; if the device does not report it, the largest addressable size."""

    if device is not None and torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**47


def as_device(name: str, value: object) -> torch.device | None:
    r"""Returns a device that exists on this machine; `None` means that none was passed.

    Raises:
        ValueError, TypeError: If there is no such device.
    """

    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | torch.device | int):
        raise TypeError(f"{name} must be a device, such as 'cpu' or 'cuda', but is {value!r}.")
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError, ImportError):
        device = None
    if device is None or device.type == "meta":
        there = ["'cpu'", *(repr(kind) for kind in ("cuda", "mps") if _is_there(kind))]
        raise ValueError(
            f"{name}={value!r} is not a device of this machine, which has {', '.join(there)}."
        )
    return device


def _is_there(kind: str) -> bool:
    return bool(torch.get_device_module(kind).is_available())


def _scalar(value: object) -> object:
    r"""The value in an array or tensor without dimensions, or in a NumPy scalar."""

    if isinstance(value, np.generic) or (
        isinstance(value, np.ndarray | Tensor) and value.ndim == 0
    ):
        try:
            return value.item()
        except (RuntimeError, NotImplementedError):  # on the device meta, or sparse
            return value
    return value


def _converted(name: str, value: object, dtype: torch.dtype | None) -> Tensor:
    if value is None or isinstance(value, str | bytes | dict | set):
        raise TypeError(_no_numbers(name, value))
    if isinstance(value, list | tuple) and any(isinstance(entry, Tensor) for entry in value):
        return _stacked(name, [as_tensor(name, entry) for entry in value])
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"{name} must have rows of equal length, but holds lists of different lengths."
        ) from None
    if array.dtype.kind == "O" and array.size and all(isinstance(v, int) for v in array.flat):
        raise ValueError(f"{name} must fit into 64 bits, but holds larger numbers.")
    if array.dtype.kind not in "biufc":
        raise TypeError(_no_numbers(name, value))
    if array.dtype.kind == "f" and isinstance(value, list | tuple | float):
        return torch.from_numpy(array).to(dtype or torch.get_default_dtype())
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _no_numbers(name: str, value: object) -> str:
    cure = "; pass its .x" if isinstance(getattr(value, "x", None), Tensor) else ""
    return f"{name} must be numbers in a tensor, an array or a list, but is {shown(value)}{cure}."


def _stacked(name: str, entries: list[Tensor]) -> Tensor:
    shapes = {tuple(entry.shape) for entry in entries}
    if len(shapes) > 1:
        raise ValueError(f"{name} must have rows of one shape, but holds {sorted(shapes)}.")
    return torch.stack(entries)


def shown(value: object) -> str:
    r"""A value as a sentence shows it: short values as they are written, others by their type."""

    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else f"a {type(value).__name__}"
