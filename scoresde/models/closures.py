r"""The modules and tensors that a function refers to."""

import dis
import functools
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
from torch import Tensor, nn

DEPTH = 6  # depth of functions in functions, containers in objects, and so on
ENTRIES = 64  # entries of a container; larger ones are taken for data


def held_by(function: object) -> Iterator[nn.Module | Tensor | np.ndarray]:
    r"""Returns the modules, tensors and arrays that a function can reach, each once, the nearest first.

    They come from its closure, its defaults, the globals it names, the object it is a method of, and the
    functions it wraps. Modules are not searched.
    """

    seen: set[int] = set()
    here: list[object] = [function]
    for _ in range(DEPTH):
        beyond: list[object] = []
        for thing in here:
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            if isinstance(thing, nn.Module | Tensor | np.ndarray):
                yield thing
            else:
                beyond += _inside(thing)
        here = beyond


def _inside(thing: object) -> Iterable[object]:
    if isinstance(thing, FunctionType):
        return _inside_function(thing)
    if isinstance(thing, MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, property):
        return [thing.fget]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, list | tuple | set):
        return list(thing) if len(thing) <= ENTRIES else []
    if isinstance(thing, dict):
        return list(thing.values()) if len(thing) <= ENTRIES else []
    if isinstance(thing, type | ModuleType):
        return []
    return list(getattr(thing, "__dict__", {}).values())


def _inside_function(function: FunctionType) -> list[object]:
    found: list[object] = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    found += [function.__globals__.get(name) for name in _globals(function.__code__)]
    return found


@functools.lru_cache(maxsize=1024)
def _globals(code: CodeType) -> tuple[str, ...]:
    r"""The names of the globals that a code object reads, including the functions inside it."""

    names = [
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    ]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _globals(constant)
    return tuple(dict.fromkeys(names))
