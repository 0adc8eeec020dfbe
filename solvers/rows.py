r"""Some of the rows of a batch, in whatever form they are said."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from .doors.values import as_tensor, shown

Rows: TypeAlias = int | slice | Tensor | np.ndarray | Sequence[int] | Sequence[bool]


def row_numbers(index: object, count: int) -> Tensor:
    r"""Returns the indices that select some of `count` samples, with shape (n,)."""

    if isinstance(index, slice):
        found = torch.tensor(range(count)[index], dtype=torch.int64)
    else:
        try:
            found = as_tensor("rows", index).cpu()
        except (TypeError, ValueError):
            raise TypeError(f"rows must be indices of samples, but are {shown(index)}.") from None
    if found.dtype == torch.bool and found.ndim == 1:
        if len(found) != count:
            raise ValueError(
                f"rows must be true or false for each of {count} samples, but has {len(found)}."
            )
        found = found.nonzero()[:, 0]
    if found.numel() == 0:
        raise ValueError("rows must select at least one sample, but is empty.")
    if found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        raise TypeError(f"rows must be whole numbers, but are {index!r}.")
    found = found.long().reshape(-1) if found.ndim < 2 else found
    if found.ndim > 1:
        raise ValueError(f"rows must have shape (n,), but has {tuple(found.shape)}.")
    beyond = found[(found < -count) | (found >= count)].tolist()
    if beyond:
        raise IndexError(f"rows must be indices of {count} samples, but one is {beyond[0]}.")
    return found % count
