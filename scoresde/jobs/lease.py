r"""A lock in an object store: a file that its owner writes anew, so that a dead owner is found out."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

SECONDS = 60.0  # after which an owner that was not heard of is taken for dead


class Taken(ValueError):
    r"""The refusal to work on what another works on."""


class Files(Protocol):
    r"""The files of a store."""

    def read(self, name: str) -> bytes | None:
        r"""Returns the content of a file, or `None` if there is none."""

    def write(self, name: str, content: bytes) -> None:
        r"""Writes a file, over what is there."""

    def create(self, name: str, content: bytes) -> bool:
        r"""Writes a file unless it is there, and returns whether it was not."""

    def remove(self, name: str) -> None:
        r"""Removes a file, if it is there."""


@dataclass
class Lease:
    r"""Creates a lock.

    It is renewed by a thread, so that it is kept however long the owner computes. Clocks of machines that share a
    store must agree within half a minute.

    Arguments:
        files: The store.
        name: The name of the file.
        taken: The message to one who comes second.
    """

    files: Files
    name: str
    taken: str
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    _ended: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        r"""Holds the lock, and yields a function that raises an error if it was lost.

        Raises:
            Taken: If another owner has it.
        """

        self._take()
        renewal = threading.Thread(target=self._renew, daemon=True)
        renewal.start()
        try:
            yield self._check
        finally:
            self._ended.set()
            renewal.join()
            if self._is_own():
                self.files.remove(self.name)

    def _take(self) -> None:
        known = self.files.read(self.name)
        if is_held(known):
            raise Taken(
                f"{self.taken} One that was killed ends {SECONDS:.0f} s after its last word."
            )
        if known is not None:
            self.files.remove(self.name)
        if not self.files.create(self.name, self._said()) or not self._is_own():
            raise Taken(self.taken)

    def _renew(self) -> None:
        while not self._ended.wait(SECONDS / 4):
            with suppress(Exception):  # of a network that comes back, as its library says it
                self._lost = not self._is_own()
                if self._lost:
                    return
                self.files.write(self.name, self._said())

    def _check(self) -> None:
        if self._lost:
            raise Taken(self.taken)

    def _is_own(self) -> bool:
        return _entry(self.files.read(self.name), "owner") == self.owner

    def _said(self) -> bytes:
        return json.dumps({"owner": self.owner, "time": time.time()}).encode()


def is_held(content: bytes | None) -> bool:
    r"""Returns whether a lock with this content, or `None` if there is no file, has a living owner."""

    said = _entry(content, "time")
    return isinstance(said, int | float) and time.time() - said < SECONDS


def _entry(content: bytes | None, name: str) -> object:
    try:
        known = json.loads(content or b"{}")
    except ValueError:
        return None
    return known.get(name) if isinstance(known, dict) else None
