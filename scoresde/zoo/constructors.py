r"""Constructors of networks, by their names in cards: only registered ones are called."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import nn

from .. import networks
from ..adapters.folders import exported
from ..adapters.weights import SPARE, without_memory
from ..files import shortened

Constructor = Callable[..., nn.Module]
C = TypeVar("C", bound=Constructor)
DIFFUSERS = "diffusers:"  # before the names of classes that diffusers exports
DEEPEST, LONGEST, LARGEST = 6, 10**6, 2**31  # of settings
REGISTERED: dict[str, Constructor] = {}


def register_network(constructor: C) -> C:
    r"""Lets :func:`scoresde.load` call a class or function that makes networks, and returns it.

    Cards hold its import path, such as "package.module:Network", and its keyword arguments, the settings.
    Register only constructors that are safe to call with any settings, since a card may hold any.

    Arguments:
        constructor: The class or function, at the top of a module or class.

    Raises:
        ValueError: If it has no import path.

    Examples:
        >>> ss.register_network(torch.nn.Linear) is torch.nn.Linear
        True
    """

    REGISTERED[path_of(constructor)] = constructor
    return constructor


def path_of(constructor: Any) -> str:
    r"""Returns the import path of a class or function."""

    path = path_in(constructor)
    if not is_path(path):
        raise ValueError(
            "constructor must be a class or function at the top of a module, by whose name cards can find it, but "
            f"is {constructor!r}."
        )
    return path


def path_in(constructor: Any) -> str:
    r"""Returns the import path that a class or function claims, such as "package.module:Network"."""

    return f"{getattr(constructor, '__module__', '')}:{getattr(constructor, '__qualname__', '')}"


def name_of(network: nn.Module) -> str:
    r"""Returns the name by which cards know the constructor of a network."""

    kind = type(network)
    if getattr(networks, kind.__name__, None) is kind:
        return kind.__name__
    if kind.__module__.split(".")[0] == "diffusers":
        return DIFFUSERS + kind.__name__
    return path_of(kind)


def is_name(name: object) -> bool:
    r"""Whether a card may name a constructor so."""

    return name in networks.__all__ or is_path(name)


def constructor_of(name: str, trust: bool = False) -> Constructor:
    r"""Returns the constructor of a name in a card.

    Arguments:
        name: The name of a network of this package, or "module:name".
        trust: Whether one that is not registered is imported.

    Raises:
        ValueError: If it is not registered, or there is none.
    """

    if name in networks.__all__:
        return getattr(networks, name)
    if name in REGISTERED:
        return REGISTERED[name]
    if name.startswith(DIFFUSERS):
        kind = exported(name.removeprefix(DIFFUSERS), "ModelMixin")
        return lambda **settings: kind.from_config(settings)
    return imported(name, "network", trust)


def imported(name: str, noun: str, trust: bool) -> Callable[..., Any]:
    r"""Returns the class or function at an import path in a card, which imports its module.

    Arguments:
        name: The import path.
        noun: What it makes: "network", "process" or "model".
        trust: Whether the user trusts the card.

    Raises:
        ValueError: If there is no trust, or nothing to call at the path.
    """

    if not trust:
        known = "is not registered: import it and call ss.register_network, or "
        unknown = known if noun == "network" else "is not of this package: "
        raise ValueError(
            f"its {noun} is made by {shortened(name)}, which {unknown}pass trust=True, which imports and runs it, "
            "if you trust the file"
        )
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"its {noun} is made by {shortened(name)}, which is missing: {error}"
        ) from None
    if not callable(found):
        raise ValueError(f"its {noun} is made by {shortened(name)}, which is no class or function")
    return found  # type: ignore[no-any-return]


def is_plain(value: object, depth: int = DEEPEST) -> bool:
    r"""Whether a setting is plain data of no unusual size: numbers, texts, lists and settings by name."""

    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) <= LARGEST  # and so not NaN
    if isinstance(value, str):
        return len(value) <= LONGEST
    if isinstance(value, Mapping | list | tuple):
        inside = value.values() if isinstance(value, Mapping) else value
        small = len(value) <= LONGEST and depth > 0
        return small and all(is_plain(one, depth - 1) for one in inside)
    return value is None or isinstance(value, bool)


def built(
    name: str, constructor: Constructor, settings: Mapping[str, Any], count: int
) -> nn.Module:
    r"""Returns a network without memory for its weights.

    Arguments:
        name: The name of its constructor.
        constructor: Its constructor.
        settings: Its settings.
        count: The number of weights in its file.
    """

    with without_memory(count, 1 if name in networks.__all__ else SPARE):
        network = constructor(**settings)
    if not isinstance(network, nn.Module):
        raise ValueError(f"its network must be a module, but is a {type(network).__name__}")
    return network


def computes_when_built(network: nn.Module) -> bool:
    r"""Whether a network without memory lacks tables that its constructor computes, beside its weights."""

    kept = network.state_dict().keys()
    if any(name not in kept for name, _ in network.named_buffers()):
        return True
    held = (value for module in network.modules() for value in vars(module).values())
    return any(isinstance(value, torch.Tensor) and value.is_meta for value in held)


def is_path(name: object) -> bool:
    r"""Whether a name is an import path, such as "package.module:Class"."""

    if not isinstance(name, str):
        return False
    module, _, path = name.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *path.split(".")))
