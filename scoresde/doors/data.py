r"""Argument checks for data: batches of floating-point numbers."""

from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from solvers import Solution
from solvers.doors.values import Array, as_tensor, as_whole
from solvers.shapes import row_finite

Samples = Array | Solution  # data, or the solution of a run that ended in data
MANY = 10**8  # samples drawn at once
LEVELS = (
    "; scale integer data as in training, and pass levels through ss.dequantize for likelihoods"
)


def as_floats(
    name: str, value: object, *, least: int = 0, dtype: torch.dtype | None = None, cure: str = ""
) -> Tensor:
    r"""Returns finite floating-point numbers.

    Arguments:
        name: The name of the argument.
        value: The numbers: a tensor, an array, a list, or a single number.
        least: The minimum number of dimensions.
        dtype: The dtype. By default, that of the numbers.
        cure: What to do with whole numbers, for the error message.

    Raises:
        TypeError: If it holds no numbers, or whole numbers.
        ValueError: If it is empty, has too few dimensions, or holds NaN or infinite numbers.
    """

    x = _floats(name, value, dtype, cure)
    if x.ndim < least or not x.numel():
        wanted = f", in at least {least} dimensions" if least else ""
        raise ValueError(f"{name} must hold numbers{wanted}, but has shape {tuple(x.shape)}.")
    if not bool(x.detach().isfinite().all()):
        raise ValueError(f"{name} must be finite, but has NaN or infinite entries.")
    return x


def as_data(name: str, value: object, *, finite: bool = True) -> Tensor:
    r"""Returns data with shape (B, *), B >= 1, in floating-point numbers; a solution gives its samples.

    Raises:
        TypeError: If it holds no numbers, or whole numbers.
        ValueError: If its shape or values do not fit, or a solution does not hold data.
    """

    value = _samples(name, value) if isinstance(value, Solution) else value
    x = _floats(name, value, None, LEVELS)
    check_batch_shape(name, x)
    if finite:
        check_rows_finite(name, x)
    return x


def as_state(name: str, value: object) -> Tensor:
    r"""Returns states with shape (B, *); their values are not checked, which would wait for the device."""

    return as_data(name, value, finite=False)


def as_times(name: str, value: object) -> Tensor:
    r"""Returns times or log-SNRs in floating-point numbers of any shape, in float64 unless they have a dtype.

    Raises:
        TypeError: If it holds no numbers, or Booleans.
        ValueError: If one is NaN.
    """

    said = isinstance(value, Tensor | np.ndarray)
    t = as_tensor(name, value, None if said else torch.float64)
    if t.dtype == torch.bool or isinstance(value, bool):
        raise TypeError(f"{name} must hold numbers, but holds Booleans.")
    t = t if t.is_floating_point() else t.double()
    if t.device.type == "cpu" and not is_functorch_wrapped_tensor(t) and bool(t.isnan().any()):
        raise ValueError(f"{name} must be numbers, but holds NaN.")
    return t


def as_size(name: str, value: object) -> int:
    r"""Returns the number of samples."""

    if value is None:
        raise TypeError(f"{name} must be a whole number, but is None.")
    return cast(int, as_whole(name, value, at_least=1, at_most=MANY))


def as_seed(name: str, value: object) -> int:
    r"""Returns a seed."""

    if value is None:
        raise TypeError(f"{name} must be a whole number, but is None.")
    return cast(int, as_whole(name, value))


def as_seeds(name: str, value: object, count: int) -> int | Tensor:
    r"""Returns a seed, or one for each of `count` samples."""

    if not isinstance(value, Tensor) or value.ndim == 0:
        return as_seed(name, value)
    seeds = as_tensor(name, value)
    if seeds.shape != (count,) or seeds.is_floating_point() or seeds.dtype == torch.bool:
        raise ValueError(
            f"{name} must be a whole number, or {count} of them, one per sample, but holds {seeds.dtype} of "
            f"shape {tuple(seeds.shape)}."
        )
    return seeds


def as_index(name: str, value: object) -> Tensor:
    r"""Returns the indices of some rows, with shape (n,)."""

    index = as_tensor(name, value)
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise TypeError(
            f"{name} must hold whole numbers, with shape (n,), but holds {index.dtype} of shape "
            f"{tuple(index.shape)}."
        )
    return index.long()


def as_pair(x: object, y: object, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    r"""Returns two sets of data whose samples have the same shape."""

    a, b = (as_data(name, value) for name, value in zip(names, (x, y), strict=True))
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have samples of the same shape, but have {tuple(a.shape[1:])} and "
            f"{tuple(b.shape[1:])}."
        )
    return a, b


def with_origin(solution: Solution, given: object) -> Solution:
    r"""Returns a solution that records, as "origin", how the data was made, if a solution was given for it."""

    if not isinstance(given, Solution):
        return solution
    return replace(solution, provenance={**solution.provenance, "origin": given.provenance})


def goes_up(solution: Solution) -> bool:
    r"""Returns whether a run went up to noise, so that it ended in latents."""

    first, last = solution.times[0].flatten()[0], solution.times[-1].flatten()[0]
    return bool(first < last)


def holds_data(solution: Solution) -> bool:
    r"""Returns whether a run ended in data, and not in noisy states or latents."""

    made = solution.provenance
    clean = bool(made.get("denoise", True) or made.get("in data units"))
    return clean and not goes_up(solution)


def _samples(name: str, solution: Solution) -> Tensor:
    r"""The samples of a solution, after checking that these are data."""

    if goes_up(solution):
        raise ValueError(
            f"{name} must be data, but this solution holds latents, at the noisy end of its run; pass the "
            "solution of ss.decode, or the tensor z.x if that is intended."
        )
    if not holds_data(solution):
        raise ValueError(
            f"{name} must be data, but this solution ended without a denoising, in states; pass denoise=True "
            "to that run, or the tensor s.x if that is intended."
        )
    bad = [i for i, status in enumerate(solution.status) if status != "ok"]
    if bad:
        raise ValueError(
            f"{name} must be data, but samples {bad[:8]} of this solution did not reach the end of their run; "
            "leave them out: pass s.rows(...)."
        )
    return solution.x


def _floats(name: str, value: object, dtype: torch.dtype | None, cure: str) -> Tensor:
    x = as_tensor(name, value, dtype)
    if not isinstance(value, Tensor | np.ndarray) and x.dtype == torch.int64:
        x = x.to(torch.get_default_dtype())  # lists have no dtype: [[0, 1]] is [[0.0, 1.0]]
    if not x.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, but holds {x.dtype}{cure}.")
    return x


def check_batch_shape(name: str, x: Tensor) -> None:
    r"""Refuses data that is not a batch of at least one sample."""

    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape (B, *) with B >= 1, but has {tuple(x.shape)}.")


def check_rows_finite(name: str, x: Tensor) -> None:
    r"""Refuses data with NaN or infinite entries."""

    fine = row_finite(x.detach())
    if not bool(fine.all()):
        bad = (~fine).nonzero()[:, 0].tolist()
        raise ValueError(
            f"{name} must be finite, but has NaN or infinite entries in rows {bad[:8]}."
        )


def labels_of(labels: object, count: int) -> Tensor:
    r"""Returns the labels of data, one for each of its samples."""

    known = as_tensor("labels", labels)
    if known.shape != (count,) or known.is_floating_point():
        raise ValueError(
            f"labels must be {count} whole numbers, one per sample, but hold {known.dtype} of shape "
            f"{tuple(known.shape)}."
        )
    return known
