r"""Warnings of the run of one session, although many sessions share a process."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

_words: ContextVar[list[str] | None] = ContextVar("words", default=None)


@contextmanager
def heard() -> Iterator[list[str]]:
    r"""Yields the list of the warnings in its block, which it fills within :func:`listening`."""

    words: list[str] = []
    token = _words.set(words)
    try:
        yield words
    finally:
        _words.reset(token)


@contextmanager
def listening() -> Iterator[None]:
    r"""Hands warnings to the block of :func:`heard` that they belong to; the others are printed."""

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _tell
        yield


def _tell(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    words = _words.get()
    if words is None:
        sys.stderr.write(f"warning: {message}\n")
    elif str(message) not in words:
        words.append(str(message))
