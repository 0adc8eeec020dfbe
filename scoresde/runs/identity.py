r"""What identifies a model or another object: everything in it that may change a result."""

import dataclasses
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models.score_model import ScoreModel
from .plan import describe_function

MACHINERY = {"_parameters", "_buffers", "_modules", "training", "__module__"} | {
    name for name in vars(nn.Module()) if "hook" in name or name.startswith("_non_persistent")
}
# what calls of a score model have revealed, such as the warnings that were given
NOTES = {"_asked_at_prior", "_checked", "_healthy", "_seen", "_steady", "trusted"}


def identity(value: object) -> str:
    r"""Returns a digest of an object: its class, numbers, texts, tensors and functions, and those of its parts.

    Objects that were built in the same way in two processes have the same digest.

    Arguments:
        value: Any object, such as a score model with its conditions.
    """

    hashed = hashlib.sha256()
    for word in _words(value, set()):
        hashed.update(word if isinstance(word, bytes) else word.encode())
        hashed.update(b"\0")
    return hashed.hexdigest()[:16]


def _words(value: object, seen: set[int]) -> Iterator[str | bytes]:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Path):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, Tensor | np.ndarray):
        yield from _of_tensor(torch.as_tensor(value).detach())
    elif isinstance(value, torch.dtype | torch.device | np.generic):
        yield str(value)
    elif id(value) in seen:  # a cycle, or a part that is shared
        yield "again"
    else:
        seen.add(id(value))
        yield from _of_object(value, seen)


def _of_tensor(value: Tensor) -> Iterator[str | bytes]:
    yield f"{value.dtype} {tuple(value.shape)}"
    yield (
        value.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        if value.numel()
        else ""
    )


def _of_object(value: object, seen: set[int]) -> Iterator[str | bytes]:
    if isinstance(value, Mapping):
        yield "mapping"
        for name, part in value.items():
            yield str(name)
            yield from _words(part, seen)
    elif isinstance(value, set | frozenset):
        yield from sorted(identity(part) for part in value)
    elif isinstance(value, list | tuple):
        yield f"{len(value)} of"
        for part in value:
            yield from _words(part, seen)
    elif isinstance(value, nn.Module):
        less = MACHINERY | NOTES if isinstance(value, ScoreModel) else MACHINERY
        parts = {n: v for n, v in vars(value).items() if n not in less}
        parts |= {**value._parameters, **value._buffers, **value._modules}
        yield from _named(value, parts, seen)
    else:
        yield from _of_function(value, seen)


def _of_function(value: object, seen: set[int]) -> Iterator[str | bytes]:
    if isinstance(value, functools.partial):
        yield from _words([value.func, value.args, value.keywords], seen)
    elif isinstance(value, types.MethodType):
        yield from _words([value.__func__, value.__self__], seen)
    elif isinstance(value, types.FunctionType):
        yield describe_function(value)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        yield from _words([cells, value.__defaults__, value.__kwdefaults__], seen)
    elif isinstance(value, type) or not hasattr(value, "__dict__"):
        yield getattr(value, "__qualname__", None) or type(value).__qualname__
        slots = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        yield from _words([getattr(value, slot.name, None) for slot in slots], seen)
    else:
        yield from _named(value, vars(value), seen)


def _named(value: object, parts: Mapping[str, object], seen: set[int]) -> Iterator[str | bytes]:
    yield f"{type(value).__module__}.{type(value).__qualname__}"
    own = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    aside = {part.name for part in own if not part.compare}  # what equal objects may differ in
    for name in sorted(parts.keys() - aside):
        if isinstance(getattr(type(value), name, None), functools.cached_property):
            continue  # follows from the rest, and is there only after its first use
        yield name
        yield from _words(parts[name], seen)
