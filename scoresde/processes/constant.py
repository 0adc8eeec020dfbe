r"""Results of a process that are computed once."""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Protocol, TypeVar, cast

F = TypeVar("F", bound=Callable[..., float])


class Constant(Hashable, Protocol):
    r"""An object that says whether it is constant."""

    @property
    def is_constant(self) -> bool: ...


def kept(function: F) -> F:
    r"""Returns a method for numbers whose results a constant process computes once."""

    known = lru_cache(maxsize=1024)(function)

    @wraps(function)
    def call(self: Constant, *arguments: Hashable, **keywords: Hashable) -> float:
        return (known if self.is_constant else function)(self, *arguments, **keywords)

    return cast(F, call)
