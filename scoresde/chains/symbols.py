r"""Argument checks of symbols."""

import torch
from torch import Tensor

from solvers.doors.values import as_shape, as_tensor, as_whole, shown

MOST = 2**24  # symbols of a vocabulary


def check_vocabulary(value: object) -> None:
    r"""Refuses vocabularies of less than two symbols."""

    as_whole("vocabulary", value, at_least=2, at_most=MOST)


def as_symbols(name: str, value: object, vocabulary: int) -> Tensor:
    r"""Returns symbols in int64, with shape (B, L).

    Raises:
        TypeError: If they are not whole numbers.
        ValueError: If their shape is not (B, L), or one is not in the vocabulary.
    """

    x = as_tensor(name, value)
    if x.is_floating_point() or x.dtype == torch.bool:
        raise TypeError(f"{name} must hold whole numbers, the symbols, but holds {x.dtype}.")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"{name} must have shape (B, L) with B, L >= 1, but has {tuple(x.shape)}."
        )
    x = x.long()
    if not bool(((x >= 0) & (x < vocabulary)).all()):
        raise ValueError(
            f"{name} must hold symbols from 0 to {vocabulary - 1}, but holds {int(x.min())} to "
            f"{int(x.max())}."
        )
    return x


def shape_of(shape: object) -> tuple[int, int]:
    r"""Returns the shape (B, L) of sequences."""

    sizes = as_shape("shape", shape)
    if len(sizes) != 2:
        raise ValueError(f"shape must be (B, L), but is {shown(shape)}.")
    return sizes[0], sizes[1]
