r"""Counts of network calls, taken where the calls happen.

A model that runs a network reports it with :func:`count_call`, and :func:`counting` opens a counter. Counters
belong to the thread that opened them. A field that reports no calls counts one per evaluation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Counter:
    r"""The number of network calls since it was opened.

    Attributes:
        total: The calls, except those counted by a counter that was opened inside this one.
        backward: All calls through which a gradient flowed back.
    """

    def __init__(self) -> None:
        self.total = self.backward = 0
        self.outer = _current.get()  # in which it is opened

    def watch(self, field: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        r"""Returns the field, which counts one call whenever nothing inside it counted one."""

        def counted(x: Tensor) -> Tensor:
            before = self.total
            dx = field(x)
            if self.total == before:
                self.total += 1
            return dx

        return counted


_current: ContextVar[Counter | None] = ContextVar("counter", default=None)


def count_call(calls: int = 1) -> None:
    r"""Tells the current counter, if there is one, that a network was called.

    Arguments:
        calls: How often.

    Examples:
        >>> def network(x):
        ...     solvers.count_call()
        ...     return 2 * x
        >>> with solvers.counting() as counter:
        ...     out = network(torch.ones(1))
        >>> counter.total
        1
    """

    counter = _current.get()
    if counter is not None:
        counter.total += calls


def count_backward(out: Tensor) -> None:
    r"""Counts a backward call as soon as a gradient flows back into a network's output.

    Arguments:
        out: The output of the network, with any shape.

    Examples:
        >>> x = torch.ones(1, requires_grad=True)
        >>> with solvers.counting() as counter:
        ...     out = 2 * x
        ...     solvers.count_backward(out)
        ...     out.sum().backward()
        >>> counter.backward
        1
    """

    counter = _current.get()
    if counter is None or not out.requires_grad:
        return

    def count(_: Tensor) -> None:
        some: Counter | None = counter
        while some is not None:
            some.backward += 1
            some = some.outer

    out.register_hook(count)


@contextmanager
def uncounted() -> Iterator[None]:
    r"""Hides the calls made in its block from all counters, such as those that check a model."""

    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def counting(counter: Counter | None = None) -> Iterator[Counter]:
    r"""Opens a counter for the network calls (NFE) made in its block, or continues one.

    Arguments:
        counter: The counter to continue. By default, a new one.

    Examples:
        >>> with solvers.counting() as counter:
        ...     solvers.count_call()
        ...     solvers.count_call()
        >>> counter.total
        2
    """

    counter = Counter() if counter is None else counter
    token = _current.set(counter)
    try:
        yield counter
    finally:
        _current.reset(token)
