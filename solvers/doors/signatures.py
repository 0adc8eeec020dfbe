r"""Checks of arguments against the annotations of signatures.

The annotations of a public function declare the type of each argument. :func:`checked` refuses anything else in
one sentence, before any work is done, and accepts numbers from any library. Functions that take data have their
own checks (:func:`solvers.doors.as_tensor`), so tensors are not checked here.
"""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from .values import WORD, as_device, as_number, as_tensor, as_whole, shown

C = TypeVar("C", bound=Callable[..., object])
OPEN = (Tensor, Any, object)  # left to the checks of data, or to nobody
CONTAINERS: dict[object, tuple[tuple[type, ...], str]] = {
    Sequence: ((list, tuple, range, np.ndarray, Tensor), "a list"),
    tuple: ((list, tuple, np.ndarray, Tensor), "a tuple"),
    list: ((list,), "a list"),
    Mapping: ((Mapping,), "a dictionary"),
    dict: ((dict,), "a dictionary"),
}


Door = Callable[[str, object], object]  # from the name and value of an argument to the value used
Gate = Callable[[object, str], None]
WORDS: dict[type, str] = {str: "a text", Path: "a path"}


class Kind(NamedTuple):
    r"""The kind of value that an argument takes.

    Arguments:
        words: Its description in words.
        take: A function from the argument's name and value to the value that is used.
        plain: The types whose values are used as they are, without calling `take`.
    """

    words: str
    take: Door
    plain: tuple[type, ...] = ()


def checked(function: C) -> C:
    r"""Returns the function or class with checks that refuse arguments which do not fit its signature."""

    if inspect.isclass(function):
        function.__init__ = checked(function.__init__)  # type: ignore[method-assign]
        return function
    parameters = inspect.signature(function).parameters.values()
    named = {
        p.name: p.default for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    order = tuple(named)

    @functools.cache
    def kinds() -> dict[str, Kind]:
        hints = typing.get_type_hints(function)
        found = {name: kind_of(hints[name]) for name in order if name in hints}
        return {name: kind for name, kind in found.items() if kind is not None}

    @functools.wraps(function)
    def call(*arguments: object, **keywords: object) -> object:
        known = kinds()
        taken = list(arguments)
        said = [*zip(order, arguments, strict=False), *keywords.items()]
        for place, (name, value) in enumerate(said):
            kind = known.get(name)
            if kind is None or isinstance(value, kind.plain) or value is named[name]:
                continue
            if name in keywords:
                keywords[name] = kind.take(name, value)
            else:
                taken[place] = kind.take(name, value)
        return function(*taken, **keywords)

    call.bare = function  # type: ignore[attr-defined]
    return typing.cast(C, call)


def with_doors(
    owner: type, doors: Mapping[str, Mapping[str, Door]], gate: Gate | None = None
) -> None:
    r"""Adds checks of some arguments to the methods that a class itself defines.

    Internal callers, whose arguments are already checked, call the unchecked methods: `bare_log_snr` for
    `log_snr`, and `bare_call` for `__call__`.

    Arguments:
        owner: The class.
        doors: The checks by the names of methods and arguments; none for methods that are already checked, or
            check their arguments themselves.
        gate: A function that refuses calls, from the object and the name of the method.
    """

    for name, known in doors.items():
        method = vars(owner).get(name)
        if (
            known
            and inspect.isfunction(method)
            and not getattr(method, "__isabstractmethod__", False)
        ):
            setattr(owner, name, _through(method, known, gate))
        found = getattr(owner, name, None)  # that of a base class, if it has none itself
        setattr(owner, f"bare_{name.strip('_')}", getattr(found, "bare", found))


def _through(
    method: Callable[..., object], doors: Mapping[str, Door], gate: Gate | None
) -> Callable[..., object]:
    order = tuple(inspect.signature(method).parameters)
    places = [(order.index(name), name, door) for name, door in doors.items() if name in order]

    @functools.wraps(method)
    def call(*arguments: object, **keywords: object) -> object:
        own = getattr(type(arguments[0]), method.__name__, None)
        if (
            gate is not None and own is call
        ):  # otherwise, a method of the object calls this by super()
            gate(arguments[0], method.__name__)
        taken = list(arguments)
        for place, name, door in places:
            if place < len(taken):
                taken[place] = door(name, taken[place])
            elif name in keywords:
                keywords[name] = door(name, keywords[name])
        return method(*taken, **keywords)

    call.bare = method  # type: ignore[attr-defined]
    return call


def kind_of(hint: object) -> Kind | None:
    r"""Returns the kind of value that an annotation allows, or `None` if it is checked elsewhere."""

    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in OPEN or isinstance(hint, TypeVar):
        return None
    if origin in (typing.Union, types.UnionType):
        return _either(parts)
    if origin is Literal:
        return _choice(parts)
    if origin is Callable:
        return Kind("a function", _callable)
    if origin in CONTAINERS:
        return _container(CONTAINERS[origin], parts)
    return PLAIN.get(hint) or (_instance(hint) if inspect.isclass(hint) else None)


def _number(name: str, value: object) -> object:
    if type(value) is float and value == value:
        return value
    found = as_number(name, value)
    if found is None:
        raise TypeError(f"{name} must be a number, but is None.")
    if math.isnan(typing.cast(float, found)):
        raise ValueError(f"{name} must be a finite number, but is nan.")
    return found


def _whole(name: str, value: object) -> object:
    if type(value) is int and -WORD <= value < WORD:
        return value
    if value is None:
        raise TypeError(f"{name} must be a whole number, but is None.")
    return as_whole(name, value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, but is {shown(value)}.")
    return bool(value)


def _callable(name: str, value: object) -> object:
    if not callable(value):
        raise TypeError(f"{name} must be a function, but is {shown(value)}.")
    return value


def _nothing(name: str, value: object) -> None:
    if value is not None:
        raise TypeError(f"{name} must be None, but is {shown(value)}.")


def _device(name: str, value: object) -> object:
    return as_device(name, value)


PLAIN: dict[object, Kind] = {
    float: Kind("a number", _number),
    int: Kind("a whole number", _whole),
    bool: Kind("True or False", _truth, (bool,)),
    type(None): Kind("None", _nothing, (type(None),)),
    Callable: Kind("a function", _callable),
    torch.device: Kind("a device, such as 'cpu' or 'cuda'", _device),
}  # fmt: skip


def _instance(wanted: type) -> Kind:
    words = WORDS.get(wanted, f"a {wanted.__name__}")

    def take(name: str, value: object) -> object:
        if not isinstance(value, wanted):
            cure = getattr(type(value), "meant_for", getattr(wanted, "instead", ""))
            raise TypeError(f"{name} must be {words}, but is {_named(value)}{cure}.")
        return value

    return Kind(words, take, (wanted,))


def _choice(choices: Iterable[object]) -> Kind:
    choices = tuple(choices)
    words = _or([repr(choice) for choice in choices])
    known = [(type(choice), choice) for choice in choices]

    def take(name: str, value: object) -> object:
        if (type(value), value) not in known:
            kind = ValueError if isinstance(value, str) else TypeError
            raise kind(f"{name} must be {words}, but is {shown(value)}.")
        return value

    return Kind(words, take)


def _either(hints: Iterable[object]) -> Kind | None:
    hints = list(hints)
    if torch.device in hints:  # which strings and numbers stand for
        hints = [hint for hint in hints if hint is not str]
    if Sequence[int] in hints or tuple[int, ...] in hints:  # which lists and arrays stand for
        hints = [hint for hint in hints if hint not in (list[int], np.ndarray, Tensor)]
    found = [kind_of(hint) for hint in hints]
    kinds = [kind for kind in found if kind is not None]
    if len(kinds) < len(found):
        return None
    several = [kind for kind in kinds if kind is not PLAIN[type(None)]]
    path = {"a text": "a path"} if Path in hints else {}  # which strings stand for
    words = _or(list(dict.fromkeys(path.get(kind.words, kind.words) for kind in several)))
    plain = tuple(known for kind in kinds for known in kind.plain)
    if len(several) == 1:
        return Kind(words, several[0].take, plain)

    def take(name: str, value: object) -> object:
        for kind in several:
            try:
                return kind.take(name, value)
            except TypeError:
                continue
        cure = getattr(type(value), "meant_for", "")
        raise TypeError(f"{name} must be {words}, but is {_named(value)}{cure}.")

    return Kind(words, take, plain)


def _container(known: tuple[tuple[type, ...], str], parts: tuple[object, ...]) -> Kind:
    types_, words = known
    paired = (
        len(parts) > 1 and parts[-1] is not ... and tuple in types_
    )  # whose length is checked elsewhere
    inside = kind_of(parts[0]) if parts and not paired else None

    def take(name: str, value: object) -> object:
        if not paired and not isinstance(value, types_):
            cure = f"; write [{value!r}]" if words == "a list" and isinstance(value, str) else ""
            raise TypeError(f"{name} must be {words}, but is {_named(value)}{cure}.")
        if isinstance(value, np.ndarray | Tensor):
            value = _entries(name, value, inside is None)
        if isinstance(value, Mapping) or inside is None:
            return value
        entries = typing.cast(Iterable[object], value)
        found = [
            entry if isinstance(entry, inside.plain) else inside.take(f"each of {name}", entry)
            for entry in entries
        ]
        return tuple(found) if isinstance(value, tuple) else found

    return Kind(words, take)


def _entries(name: str, value: object, rows: bool) -> list[object]:
    r"""The rows of an array, or its numbers if it has one dimension."""

    entries = as_tensor(name, value)
    if entries.ndim == 0:
        raise TypeError(f"{name} must hold several entries, but has no dimension.")
    return list(entries) if rows and entries.ndim > 1 else entries.tolist()


def _named(value: object) -> str:
    r"""A value as a sentence names it by its type."""

    if inspect.isclass(value):
        return f"the class {value.__name__}"
    plain = value is None or isinstance(value, str | int | float | complex)
    return shown(value) if plain else f"a {type(value).__name__}"


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
