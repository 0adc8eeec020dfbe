r"""Per-sample values: tensors with leading size B or 1, wherever they are held."""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, cast

import numpy as np
from torch import Tensor, nn

T = TypeVar("T")
Change = Callable[[Tensor], Tensor]


def changed(value: T, change: Change) -> T:
    r"""Returns a value with its tensors changed, also inside dictionaries, lists and tuples.

    Numbers, tensors with shape (), and everything else stay as they are.
    """

    found: object = value
    if isinstance(value, Tensor):
        found = change(value) if value.ndim else value
    elif isinstance(value, Mapping):
        found = {name: changed(one, change) for name, one in value.items()}
    elif isinstance(value, list | tuple):
        make = getattr(value, "_make", type(value))  # of a named tuple
        found = make(changed(one, change) for one in value)
    return cast(T, found)


def tensors_in(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    r"""Returns the tensors that :func:`changed` changes, with their names."""

    if isinstance(value, Tensor):
        if value.ndim:
            yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from tensors_in(str(key), one)
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", [name] * len(value))
        for key, one in zip(names, value, strict=True):
            yield from tensors_in(key, one)


def lists_in(name: str, value: object) -> Iterator[str]:
    r"""Returns the names of arrays and lists of numbers, which :func:`changed` leaves as they are."""

    if isinstance(value, np.ndarray):
        if value.ndim:
            yield name
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from lists_in(str(key), one)
    elif isinstance(value, list | tuple):
        if value and all(isinstance(one, int | float | np.number) for one in value):
            yield name
        else:
            for one in value:
                yield from lists_in(name, one)


def of_rows(index: Tensor) -> Change:
    r"""Returns the function that selects rows of a tensor; a tensor with leading size 1 is shared by all rows."""

    return lambda value: value if len(value) == 1 else value[index.to(value.device)]


def with_parts(value: T, kind: type[object] | tuple[type[object], ...], index: Tensor) -> T:
    r"""Returns a value for some rows: an object with `rows`, or lists and dictionaries that hold such objects.

    Arguments:
        value: The value, which is returned as it is if nothing in it is per sample.
        kind: The class of objects with `rows`, or several.
        index: The indices of the rows.
    """

    if isinstance(value, kind):
        return cast(T, value.rows(index))  # type: ignore[attr-defined]
    if isinstance(value, dict | nn.ModuleDict):
        old: list[object] = list(value.values())
    elif isinstance(value, list | tuple | nn.ModuleList):
        old = list(value)
    else:
        return value
    new: list[object] = [with_parts(one, kind, index) for one in old]
    if all(map(operator.is_, old, new)):
        return value
    make: Callable[[object], T] = getattr(value, "_make", type(value))
    if isinstance(value, dict | nn.ModuleDict):
        return make(dict(zip(value.keys(), new, strict=True)))
    return make(new)
