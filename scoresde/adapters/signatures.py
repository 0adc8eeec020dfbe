r"""What the signature of a network says of how it is called, and errors that say what is wrong with how it is."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ..models.compiled import as_written

Order = Literal["x, t", "t, x"]
Network = nn.Module | Callable[..., object]
TIMES = ("t", "time", "times", "timestep", "timesteps")


def parameters_of(network: Network) -> Mapping[str, inspect.Parameter]:
    r"""Returns the parameters of a network's call, of a compiled one as they were written, or none if unknown."""

    network = as_written(network)
    call = network.forward if isinstance(network, nn.Module) else network
    try:
        return inspect.signature(call).parameters
    except (TypeError, ValueError):  # of functions that are not written in Python
        return {}


def order_of(network: Network) -> Order | None:
    r"""Returns the order of state and time by their names, or `None` if these do not tell."""

    times = [name.lower() in TIMES for name in list(parameters_of(network))[:2]]
    if sum(times) != 1:
        return None
    return "t, x" if times[0] else "x, t"


def check_keywords(network: Network, keywords: Iterable[str], role: str) -> None:
    r"""Refuses keywords that a network does not take, if its signature tells.

    Raises:
        ValueError: If one is unknown.
    """

    known = parameters_of(network)
    if not known or any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    by_name = [n for n, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in keywords:
        if name not in by_name:
            raise ValueError(
                f"{role} must be keyword arguments of the network, which takes {', '.join(by_name)}, but "
                f"{name!r} is none of them."
            )


def check_names(network: Network, names: tuple[str, str]) -> None:
    r"""Refuses keywords of state and time that are not two, or that the network does not take."""

    if len(names) != 2 or names[0] == names[1]:
        raise ValueError(
            f"names must be the keywords of state and time, as ('x', 'sigma'), but is {names!r}."
        )
    check_keywords(network, names, "names")


def taken(answer: Any, entry: str | int | None) -> Any:
    r"""Returns the part of a network's answer that counts.

    Raises:
        ValueError: If there is no such part, or several and none of them is said to count.
    """

    if entry is not None:
        return _entry(answer, entry)
    if isinstance(answer, tuple | list) and answer:
        return answer[0]
    found = answer if isinstance(answer, Tensor) else getattr(answer, "sample", answer)
    if not isinstance(found, Tensor) and _parts(found):
        raise ValueError(
            f"the network returned {_described(found)}; say which of it counts, by entry={_parts(found)[0]!r} "
            "or the like."
        )
    return found


def read(thing: object, names: Iterable[str], what: str) -> Any:
    r"""Returns an object of another library if it has the attributes that are read of it.

    Arguments:
        thing: The object.
        names: The names of the attributes.
        what: What it must be, in words, as the start of a sentence.
    """

    missing = [name for name in names if not hasattr(thing, name)]
    if missing:
        raise TypeError(
            f"{what}, but is of the type {type(thing).__name__}, without {' and '.join(missing)}."
        )
    return thing


def _entry(answer: Any, entry: str | int) -> Any:
    r"""The attribute or item of an answer."""

    try:
        if isinstance(answer, Tensor):  # whose items are rows
            raise TypeError
        attribute = isinstance(entry, str) and not isinstance(answer, Mapping)
        return getattr(answer, str(entry)) if attribute else answer[entry]
    except (AttributeError, KeyError, IndexError, TypeError):
        raise ValueError(
            f"entry must say what of the network's answer counts, but is {entry!r}; the network returned "
            f"{_described(answer)}."
        ) from None


def _parts(answer: object) -> list[str]:
    r"""The names of the parts of an answer."""

    parts = answer if isinstance(answer, Mapping) else getattr(answer, "__dict__", {})
    return [str(name) for name in parts]


def _described(answer: object) -> str:
    name = type(answer).__name__
    if isinstance(answer, Tensor):
        return (
            f"one tensor, of shape {tuple(answer.shape)}, which counts as it is: leave entry out"
        )
    if isinstance(answer, tuple | list):
        return f"a {name} of {len(answer)}"
    parts = ", ".join(_parts(answer))
    return f"a {name}" + (f" of {parts}" if parts else "")
