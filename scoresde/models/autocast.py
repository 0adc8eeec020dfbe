r"""An outer autocast applies to networks only; the arithmetic of a run keeps the dtype of its state.

Changes of coordinates are matrix products, which autocast would compute in half precision.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
DEVICES = ("cpu", "cuda", "mps", "xpu")
Asked = Mapping[str, torch.dtype]  # the dtype of autocast, by device type

_hidden: ContextVar[Asked] = ContextVar("hidden", default={})  # noqa: B039, which nobody changes


@contextmanager
def without_autocast() -> Iterator[None]:
    r"""Hides an outer autocast in its block from everything except networks."""

    asked = {d: torch.get_autocast_dtype(d) for d in DEVICES if torch.is_autocast_enabled(d)}
    if not asked:
        yield
        return
    token = _hidden.set({**_hidden.get(), **asked})
    try:
        with ExitStack() as stack:
            for device in asked:
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        _hidden.reset(token)


def exempt(function: Callable[P, R]) -> Callable[P, R]:
    r"""Returns the function, unaffected by any outer autocast."""

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        with without_autocast():
            return function(*arguments, **keywords)

    return call


def hidden_autocast() -> Asked:
    r"""Returns the hidden autocast, for functions that are called later, such as in the backward pass."""

    return _hidden.get()


@contextmanager
def autocast(asked: Asked) -> Iterator[None]:
    r"""Restores the hidden autocast for a network call."""

    with ExitStack() as stack:
        for device, dtype in asked.items():
            stack.enter_context(torch.autocast(device, dtype=dtype))
        yield
