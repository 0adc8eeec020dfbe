r"""The same work on many items, by workers that stay from one round of items to the next."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Generic, TypeVar

from ..doors.warning import warn
from .engines import Died, Engine
from .start import Workers, started

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = 1  # of a worker
MOST = 1024  # processes on one machine
CURE = "make it of functions and objects that pickle takes, or leave out workers="


class Spread(Generic[Item, Result]):
    r"""Creates workers for one kind of work, which they get once. They start when the first items come.

    Arguments:
        work: A function of an item.
        workers: `None` or 1 for this process, a number of processes, "ray", or the address of a Ray cluster.
        named: A function from an item to its words in messages.
        parts: What the work has to ship, by the words for it in messages.

    Raises:
        ValueError: If one of these parts cannot be shipped.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        workers: Workers,
        named: Callable[[Item], str] = str,
        parts: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        if workers not in (None, 1):
            for name, part in parts.items():
                _check_ships(name, part)
        self._work, self._workers, self._named = work, workers, named
        self._engine: Engine | None = None

    def __enter__(self) -> "Spread[Item, Result]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.close(kill=kind is not None)

    def __call__(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        r"""Yields items with their results, in the order in which they are ready.

        Raises:
            RuntimeError: After all others, if workers died at some of the items.
            Exception: The error of an item, as it was raised by the work.
        """

        todo, died = deque(items), {}
        if not todo:
            return
        engine = self._engine = self._engine or self._started(len(todo))
        while todo or engine.busy:
            while todo and engine.free > 0:
                engine.submit(todo.popleft())
            for item, outcome in engine.ready():
                if isinstance(outcome, Died):
                    died[self._named(item)] = outcome
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    yield item, outcome
        if died:
            raise RuntimeError(
                f"there is no result of {', '.join(died)}: {next(iter(died.values()))}; if that is for want of "
                "memory, pass fewer workers= or a batch_size=. All others are done."
            )

    def _started(self, items: int) -> Engine:
        if isinstance(self._workers, int):
            if self._workers > items:
                warn(f"workers={self._workers} are more than there is work for, {items} at once.")
            return started(min(self._workers, MOST), self._work, THREADS, MOST)
        return started(self._workers, self._work, THREADS, items)


def _check_ships(name: str, part: object) -> None:
    import cloudpickle

    try:
        cloudpickle.dumps(part)
    except Exception as error:  # of any kind, from the parts of the user's model
        raise ValueError(
            f"{name} cannot be shipped to workers ({' '.join(str(error).split())}); {CURE}."
        ) from None
