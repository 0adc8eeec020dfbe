r"""Shapes: times with shape () or (B,) beside states with shape (B, *), and norms per row."""

import torch
from torch import Tensor

Scalar = float | Tensor  # a factor of a state: a number, or one number per row


def align(t: Tensor, x: Tensor) -> Tensor:
    r"""Returns `t`, with shape () or (B,), in a shape that broadcasts with `x`, with shape (B, *)."""

    if t.ndim == 0:
        return t
    if t.shape != x.shape[:1]:
        raise ValueError(f"t must have shape () or ({len(x)},), but has {tuple(t.shape)}.")
    return t.reshape(-1, *(1,) * (x.ndim - 1))


def scalars(values: Tensor, x: Tensor) -> list[Scalar]:
    r"""Returns each entry along the first axis as a factor that multiplies the state.

    Arguments:
        values: Numbers in float64, with shape (n,), or (n, B) for one per row of the state.
        x: The state, with shape (B, *), which sets device and dtype.
    """

    if values.ndim == 1:
        return values.tolist()
    return list(values.to(x.device, x.dtype).reshape(*values.shape, *(1,) * (x.ndim - 1)))


def factors(values: Tensor, x: Tensor) -> list[Scalar]:
    r"""Returns the same for numbers that may differ between coordinates of the state.

    Arguments:
        values: Numbers of shape (n, c), or (n, B, c), with c = 1 or the size of a flat sample.
        x: The state, with shape (B, *), or (B, c).
    """

    if values.shape[-1] == 1:
        return scalars(values[..., 0], x)
    return list(values.to(x.device, x.dtype))


def add_product(x: Tensor, y: Tensor, factor: Scalar) -> Tensor:
    r"""Adds a multiple of a tensor to another, in place."""

    if isinstance(factor, float):
        return x.add_(y, alpha=factor)
    return x.addcmul_(y, factor)


def row_sum(x: Tensor) -> Tensor:
    r"""Returns the sum of each row, in a shape that broadcasts with it, in float64."""

    return align(x.double().flatten(1).sum(1), x)


def row_rms(x: Tensor) -> Tensor:
    r"""Returns the root mean square of each row, with shape (B,), in float64 on the CPU."""

    return x.flatten(1).square().mean(1).sqrt().double().cpu()


def row_where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the rows of `x` where the condition, with shape (B,), holds, and those of `y` elsewhere."""

    return torch.where(align(condition.to(x.device), x), x, y)


def row_finite(x: Tensor) -> Tensor:
    r"""Returns whether each row is finite, with shape (B,), on the CPU.

    The sum of all is finite unless an entry is not, or the sum itself overflows; so one reduction settles the
    usual case, and a second check is made only where it is needed.
    """

    if bool(x.sum().isfinite()):
        return torch.ones(len(x), dtype=torch.bool)
    return x.flatten(1).isfinite().all(1).cpu()
