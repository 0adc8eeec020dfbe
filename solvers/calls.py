r"""Counting network calls where they happen.

A model that runs a network says so with :func:`count_call`. Whoever wants the number opens
:func:`counting`. Counters belong to the thread that opened them. A field in which nobody counts
is taken to cost one call per evaluation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Counter:
    r"""The number of network calls since it was opened."""

    def __init__(self) -> None:
        self.total = 0

    def watch(self, field: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        r"""Returns the field, which counts one call whenever nothing inside it counted any."""

        def counted(x: Tensor) -> Tensor:
            before = self.total
            dx = field(x)
            if self.total == before:
                self.total += 1
            return dx

        return counted


_current: ContextVar[Counter | None] = ContextVar("counter", default=None)


def count_call(calls: int = 1) -> None:
    r"""Tells the current counter, if there is one, that a network was called."""

    counter = _current.get()
    if counter is not None:
        counter.total += calls


@contextmanager
def counting() -> Iterator[Counter]:
    r"""Opens a counter for the calls made in its block."""

    counter = Counter()
    token = _current.set(counter)
    try:
        yield counter
    finally:
        _current.reset(token)
