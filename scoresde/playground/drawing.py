r"""A drawing by hand as text, which fits into an address."""

import base64

import numpy as np

from .densities import SIDE

DARK = 0.05  # the share of a square that must be marked


def ink_of(picture: np.ndarray | None) -> str:
    r"""Returns the marked squares of a drawing, as the bits of :func:`scoresde.playground.densities.drawn`.

    Arguments:
        picture: The drawing with shape (H, W, 4), whose last channel is the amount of ink, or `None`.
    """

    if picture is None or not picture[..., 3].any():
        return ""
    marked = picture[..., 3] > 0
    edges = [np.linspace(0, size, SIDE + 1).astype(int) for size in marked.shape]
    sums = np.add.reduceat(
        np.add.reduceat(marked.astype(float), edges[0][:-1], 0), edges[1][:-1], 1
    )
    squares = np.outer(*(np.diff(edge) for edge in edges))
    return base64.urlsafe_b64encode(np.packbits(sums / squares > DARK).tobytes()).decode()


def check_ink(ink: str) -> None:
    r"""Refuses a text that is no drawing with at least one marked square."""

    try:
        bits = base64.b64decode(ink.encode(), altchars=b"-_", validate=True)
    except ValueError:
        bits = b""
    if len(bits) != SIDE * SIDE // 8 or not any(bits):
        raise ValueError(
            f"ink must hold {SIDE * SIDE} squares of a drawing in base64, some of them marked, but is {ink!r}; "
            "draw anew."
        )
