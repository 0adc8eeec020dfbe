r"""Directions in latent space: between two groups, and of the largest variation.

References:
    | Diffusion Autoencoders (Preechakul et al., 2022), section 5.2, for moving along directions
    | https://arxiv.org/abs/2111.15640
"""

from typing import NamedTuple, overload

import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.signatures import checked

from ..doors.data import as_data, as_floats, as_pair
from ..models.checks import check_count
from .derived import derived


@checked
def direction(source: Tensor, target: Tensor) -> Tensor:
    r"""Returns the difference of the means of two groups of latents, with the shape of one.

    Arguments:
        source: Latents of the group without the attribute, with shape (n, \*).
        target: Latents of the group with the attribute, with shape (m, \*).

    Raises:
        ValueError: If latents of source and target have different shapes.

    Examples:
        >>> ss.editing.direction(torch.zeros(3, 2), torch.ones(5, 2))
        tensor([1., 1.])
    """

    source, target = as_pair(source, target, ("source", "target"))
    if source.shape[1:] != target.shape[1:]:
        raise ValueError(
            f"latents must have the same shape, but have {tuple(source.shape[1:])} and "
            f"{tuple(target.shape[1:])}."
        )
    return target.mean(0) - source.mean(0)


class Principal(NamedTuple):
    r"""The directions along which latents vary most.

    Arguments:
        mean: Their mean, with the shape of one latent.
        directions: Unit vectors, the most important first, with shape (k, \*).
        stds: The standard deviations along them, with shape (k,).

    Examples:
        >>> latents = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        >>> ss.editing.principal_directions(latents, 1).directions.abs()
        tensor([[1., 0.]])
    """

    mean: Tensor
    directions: Tensor
    stds: Tensor

    def __repr__(self) -> str:
        stds = ", ".join(f"{value:.3g}" for value in self.stds[:5].tolist())
        more = ", ..." if len(self.stds) > 5 else ""
        return f"Principal({len(self.stds)} directions of shape {tuple(self.mean.shape)}, stds {stds}{more})"


@checked
def principal_directions(latents: Tensor, count: int) -> Principal:
    r"""Returns the principal components of latents.

    Arguments:
        latents: The latents, with shape (n, \*).
        count: The number of components, at most n - 1 and at most the number of entries of a latent.

    Raises:
        ValueError: If there are fewer than `count` directions.

    Examples:
        >>> latents = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        >>> ss.editing.principal_directions(latents, 1).stds
        tensor([1.])
    """

    latents, count = as_data("latents", latents), check_count("count", count, at_least=1)
    most = min(len(latents) - 1, latents[0].numel())
    if count > most:
        raise ValueError(
            f"count must be at most {most}, for {len(latents)} latents of {latents[0].numel()} entries, but is "
            f"{count}."
        )
    mean = latents.mean(0)
    _, sizes, axes = torch.linalg.svd((latents - mean).flatten(1), full_matrices=False)
    found = axes[:count].reshape(-1, *latents.shape[1:])
    return Principal(mean, found, sizes[:count] / (len(latents) - 1) ** 0.5)


@overload
def move(
    latents: Tensor, direction: Tensor, amounts: Tensor, keep_norm: bool = True
) -> Tensor: ...


@overload
def move(
    latents: Solution, direction: Tensor, amounts: Tensor, keep_norm: bool = True
) -> Solution: ...


@checked
def move(
    latents: Tensor | Solution, direction: Tensor, amounts: Tensor, keep_norm: bool = True
) -> Tensor | Solution:
    r"""Returns latents moved along a direction, with shape (n, B, \*).

    Arguments:
        latents: The latents, with shape (B, \*), or the solution of :func:`scoresde.encode`, for which the
            result is a solution of n B rows, which begins with all latents moved by the first amount.
        direction: The direction, with the shape of one latent.
        amounts: The distances, in multiples of the direction, with shape (n,).
        keep_norm: Whether each latent keeps its norm, which typical latents share.

    Raises:
        ValueError: If `direction` has not the shape of one latent, or a move leads to zero and `keep_norm` is
            True.

    Examples:
        >>> z, right = torch.zeros(1, 2), torch.tensor([1.0, 0.0])
        >>> ss.editing.move(z, right, torch.tensor([0.0, 2.0]), keep_norm=False)[:, 0]
        tensor([[0., 0.],
                [2., 0.]])
    """

    if isinstance(latents, Solution):
        moved = move(latents.x, direction, amounts, keep_norm)
        return derived(moved.flatten(0, 1), latents)
    latents, direction = as_data("latents", latents), as_floats("direction", direction, least=1)
    if direction.shape != latents.shape[1:]:
        raise ValueError(
            f"direction must have shape {tuple(latents.shape[1:])}, not {tuple(direction.shape)}."
        )
    amounts = as_floats("amounts", amounts).to(latents).reshape(-1, *(1,) * latents.ndim)
    moved = latents + amounts * direction.to(latents)
    if not keep_norm:
        return moved
    shape = (-1, *(1,) * direction.ndim)
    size = latents.flatten(1).norm(dim=1).reshape(shape)
    now = moved.flatten(2).norm(dim=2).reshape(len(moved), *size.shape)
    if bool(((now == 0) & (size > 0)).any()):
        raise ValueError(
            "moving a latent along the direction makes it zero, which has no norm to keep; pass other "
            "amounts, or keep_norm=False."
        )
    return moved * (size / torch.where(size > 0, now, torch.ones_like(now)))
