r"""Data at the door: batches of floating-point numbers."""

import torch
from torch import Tensor

from solvers.doors import as_tensor

LEVELS = (
    "; scale integer data as in training, and pass levels through ss.dequantize for likelihoods"
)


def as_floats(name: str, value: object, cure: str = "") -> Tensor:
    r"""Returns floating-point numbers of any shape.

    Raises:
        TypeError: If it holds no numbers, or whole ones.
    """

    x = as_tensor(name, value)
    if isinstance(value, list | tuple) and x.dtype == torch.int64:
        x = x.to(torch.get_default_dtype())  # lists know of no dtype: [[0, 1]] is [[0.0, 1.0]]
    if not x.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, but holds {x.dtype}{cure}.")
    return x


def as_data(name: str, value: object, *, finite: bool = True) -> Tensor:
    r"""Returns data of shape (B, *), B >= 1, in floating-point numbers.

    Raises:
        TypeError: If it holds no numbers, or whole ones.
        ValueError: If its shape or values do not fit.
    """

    x = as_floats(name, value, LEVELS)
    check_batch_shape(name, x)
    if finite:
        check_rows_finite(name, x)
    return x


def check_batch_shape(name: str, x: Tensor) -> None:
    r"""Refuses what is no batch of at least one sample."""

    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape (B, *) with B >= 1, but has {tuple(x.shape)}.")


def check_rows_finite(name: str, x: Tensor) -> None:
    r"""Refuses NaN and infinite entries."""

    bad = (~x.detach().flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(
            f"{name} must be finite, but has NaN or infinite entries in rows {bad[:8]}."
        )
