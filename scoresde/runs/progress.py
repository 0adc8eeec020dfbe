r"""Progress bars: widgets in a notebook, lively on a terminal, and one line each in a log."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from time import monotonic
from typing import Any, Self

from tqdm import tqdm

REFRESH = 0.1  # seconds before a bar of a run appears, and between updates of it


def bar(
    iterable: Iterable[object] | None = None,
    *,
    desc: str,
    shown: bool = True,
    **options: object,
) -> tqdm:
    r"""Returns a tqdm progress bar on the standard error.

    Arguments:
        iterable: The items to iterate over, unless the bar is moved by hand.
        desc: Its title.
        shown: Whether to show it. In a log, every bar has its line, at its end.
        options: Other options of tqdm.
    """

    if not shown:
        return tqdm(iterable, desc=desc, disable=True, **options)
    if not _watched():
        return Line(iterable, desc=desc, mininterval=float("inf"), **options)
    return _kind()(iterable, desc=desc, **options)


class Late:
    r"""A bar that is made when a run has lasted for a while: most runs end before. In a log, it is made at once.

    Arguments:
        options: The options of :func:`bar`.
    """

    def __init__(self, **options: Any) -> None:
        self.options, self.start = options, monotonic()
        self.bar = None if _watched() else bar(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def moves(self) -> bool:
        r"""Whether there is a bar to move."""

        return self.bar is not None or monotonic() > self.start + REFRESH

    def move(self, place: float) -> None:
        r"""Moves the bar to a place."""

        if self.bar is None:
            self.bar = bar(**self.options)
            self.bar.start_t -= REFRESH
        self.bar.update(place - self.bar.n)


class Line(tqdm):  # type: ignore[misc]
    r"""A bar that writes nothing but its last state, as a line."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        r"""Writes nothing."""

    def close(self) -> None:
        r"""Ends the bar, and writes how far it has come."""

        if self.disable:
            return
        line, self.sp = str(self), None  # without it, tqdm does not clear the line
        super().close()
        self.fp.write(f"{line}\n")
        self.fp.flush()


def _watched() -> bool:
    r"""Whether the standard error is a terminal, or the output of a notebook."""

    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _kind() -> type[tqdm]:
    r"""The class of bars that someone watches: a widget in a notebook that can show it."""

    if "ipykernel" not in sys.modules or find_spec("ipywidgets") is None:
        return tqdm
    from tqdm.notebook import tqdm_notebook

    return tqdm_notebook
