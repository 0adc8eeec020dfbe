r"""Shapes: times with shape () or (B,) beside states with shape (B, *), and norms per row."""

import cmath
from dataclasses import dataclass, replace
from typing import Union

import torch
from torch import Tensor

Scalar = float | Tensor  # a factor of a state: a number, or one number per row
Factor = Union[float, Tensor, "Blocks"]


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


@dataclass(frozen=True, eq=False)
class Blocks:
    r"""A matrix for each block of a state: a factor that mixes the entries of a block.

    The first axis of a state is divided into j equal parts, and a block holds one entry of each part, so the c
    blocks of a flat sample are the columns of a matrix of shape (j, c).

    Arguments:
        matrices: The matrices, with shape (c, k, j), or (B, c, k, j) if rows differ; c = 1 if all blocks share
            one.
    """

    matrices: Tensor

    def __mul__(self, factor: Scalar) -> "Blocks":
        if isinstance(factor, Tensor) and factor.ndim:
            factor = factor.reshape(-1, 1, 1, 1)
        return replace(self, matrices=self.matrices * factor)

    def __add__(self, other: "Blocks") -> "Blocks":
        return replace(self, matrices=self.matrices + other.matrices)

    def of(self, x: Tensor) -> Tensor:
        r"""Returns the product with a state of shape (B, *), whose first axis becomes k / j times as long."""

        k, j = self.matrices.shape[-2:]
        matrices = self.matrices.to(x)
        parts = x.reshape(len(x), j, -1)
        if k == j == 1:
            found = matrices[..., 0, 0].reshape(*matrices.shape[:-3], 1, -1) * parts
        elif matrices.shape[-3] == 1:
            found = matrices[..., 0, :, :] @ parts
        else:
            found = torch.einsum("...cij,...jc->...ic", matrices, parts)
        return found.reshape(len(x), k * x.shape[1] // j, *x.shape[2:])


def blocks(values: Tensor, x: Tensor) -> list[Factor]:
    r"""Returns matrices with shape (n, c, k, j), or (n, B, c, k, j), as factors of the state."""

    return [Blocks(matrices) for matrices in values.to(x.device, x.dtype)]


def product(factor: Factor, x: Tensor) -> Tensor:
    r"""Returns the product of a factor and a tensor."""

    return factor.of(x) if isinstance(factor, Blocks) else x * factor


def add_product(x: Tensor, y: Tensor, factor: Factor) -> Tensor:
    r"""Adds a multiple of a tensor to another, in place."""

    if isinstance(factor, Blocks):
        return x.add_(factor.of(y))
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

    if cmath.isfinite(x.sum().item()):
        return torch.ones(len(x), dtype=torch.bool)
    return x.flatten(1).isfinite().all(1).cpu()
