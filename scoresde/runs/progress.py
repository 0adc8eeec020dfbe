r"""Progress bars: lively on a terminal, rare lines in a log file."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

PATIENCE = 30.0  # seconds between two states of a bar that goes to a file


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
        delay: The seconds after which it appears. In a log file, every bar has its lines.
        options: Other options of tqdm.
    """

    rare = {"mininterval": PATIENCE, "maxinterval": PATIENCE}
    pace = {"delay": delay} if _watched() else rare
    return tqdm(iterable, desc=desc, disable=not shown, **pace, **options)


def _watched() -> bool:
    r"""Whether the standard error is a terminal, or the output of a notebook."""

    return sys.stderr.isatty() or "ipykernel" in sys.modules
