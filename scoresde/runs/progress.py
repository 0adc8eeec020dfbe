r"""Progress bars: widgets in a notebook, lively on a terminal, and one line each in a log."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec

from tqdm import tqdm


def bar(
    iterable: Iterable[object] | None = None,
    *,
    desc: str,
    shown: bool = True,
    delay: float = 0.0,
    **options: object,
) -> tqdm:
    r"""Returns a tqdm progress bar on the standard error.

    Arguments:
        iterable: The items to iterate over, unless the bar is moved by hand.
        desc: Its title.
        shown: Whether to show it.
        delay: The seconds after which it appears. In a log, every bar has its line, at its end.
        options: Other options of tqdm.
    """

    if not shown:
        return tqdm(iterable, desc=desc, disable=True, **options)
    if not _watched():
        return Line(iterable, desc=desc, mininterval=float("inf"), **options)
    return _kind()(iterable, desc=desc, delay=delay, **options)


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
