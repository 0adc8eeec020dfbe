r"""Derived quantities of a process that are computed once."""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Protocol, TypeVar, cast

F = TypeVar("F", bound=Callable[..., float | str])


class _Process(Hashable, Protocol):
    @property
    def is_constant(self) -> bool: ...


def once(function: F) -> F:
    r"""Returns a method whose results a constant process computes once."""

    known = lru_cache(maxsize=1024)(function)

    @wraps(function)
    def call(self: _Process, *arguments: Hashable, **keywords: Hashable) -> float | str:
        return (known if self.is_constant else function)(self, *arguments, **keywords)

    return cast(F, call)
