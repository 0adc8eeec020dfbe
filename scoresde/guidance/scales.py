r"""Scales of guidance: a number, one number per sample, or a function of the noise level."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from solvers.doors.values import as_tensor, is_number
from solvers.shapes import Scalar, align

from ..models.by_level import OfLevel, at_levels, check_real
from ..models.checks import check_number

Scale: TypeAlias = float | Tensor | OfLevel


def as_scale(name: str, scale: object, cure: str = "") -> Scale:
    r"""Returns a scale in the form that rules hold.

    Arguments:
        name: The name of the argument.
        scale: A number, numbers with shape (B,), or a function of the noise level.
        cure: What else errors say.

    Raises:
        ValueError, TypeError: If it is none of these, or not finite.
    """

    if callable(scale):
        return scale
    found = check_number(name, scale) if is_number(scale) else as_tensor(name, scale)
    numbers = torch.as_tensor(found)
    check_real(name, numbers, "be", scale)
    if not bool(numbers.isfinite().all()) or numbers.ndim > 1:
        raise ValueError(
            f"{name} must be a finite number, or one per sample, but is {scale}{cure}."
        )
    return found if isinstance(found, Tensor) else float(found)  # type: ignore[arg-type]


def scales_at(name: str, scales: Sequence[Scale], levels: Tensor) -> list[Tensor]:
    r"""Returns scales at noise levels, all with the same shape, in float64 on the CPU.

    Arguments:
        name: What errors call them.
        scales: The scales.
        levels: The noise levels, with shape (n,), or (n, B) if rows differ.

    Returns:
        Numbers with the shape of the levels, or (n, B) if one of the scales has a number per sample.
    """

    found = []
    for scale in scales:
        if callable(scale):
            found.append(at_levels(name, scale, levels))
            continue
        w = torch.as_tensor(scale, dtype=torch.float64).detach().cpu()
        own = w.ndim and levels.ndim == 1  # one per sample
        found.append(w.expand(len(levels), len(w)) if own else w.expand_as(levels))
    if any(w.ndim > levels.ndim for w in found):
        found = [w if w.ndim > levels.ndim else w[:, None] for w in found]
        return list(torch.broadcast_tensors(*found))
    return found


def factor(name: str, scale: Scale, level: Scalar, x: Tensor) -> Scalar:
    r"""Returns a scale at one noise level, or at one for each row, as a factor of a state."""

    if callable(scale):
        known = torch.as_tensor(level, dtype=torch.float64)  # on the device, without a wait
        found = at_levels(name, scale, known.flatten() if known.ndim else known)
        return align(found.to(x), x) if found.ndim else float(found)
    if isinstance(scale, Tensor):
        return align(scale.to(x).expand(len(x)), x)
    return scale
