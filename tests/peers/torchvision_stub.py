r"""Stand-ins for modules that libraries want at import, and that nothing tested here uses."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TORCHVISION = tuple(
    f"torchvision{part}"
    for part in ("", ".transforms", ".transforms.functional", ".utils", ".datasets", ".models")
)


class Anything(ModuleType):
    r"""Creates a module that has every name, as a class that takes everything."""

    __path__: list[str] = []

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *a, **k: None})


@contextmanager
def stand_ins(*names: str, over: tuple[str, ...] = ()) -> Iterator[None]:
    r"""Puts stand-ins for those of torchvision and others that are not installed, while something is imported.

    Arguments:
        names: Further modules, each after the one that it is in.
        over: Modules that are installed, but want others that are not.
    """

    wanted = [n for n in (*TORCHVISION, *names) if n not in sys.modules and _missing(n)]
    wanted += [n for n in over if n not in sys.modules]
    for name in wanted:
        sys.modules[name] = Anything(name)
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, sys.modules[name])
    try:
        yield
    finally:
        for name in wanted:
            del sys.modules[name]


def k_diffusion() -> ModuleType:
    r"""Returns the library, which imports more for its evaluation and training than is needed here."""

    with stand_ins("pkg_resources", over=("clip",)):
        import k_diffusion
    return k_diffusion


def _missing(name: str) -> bool:
    root = name.partition(".")[0]
    return isinstance(sys.modules.get(root), Anything) or importlib.util.find_spec(root) is None
