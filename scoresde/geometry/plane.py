r"""Flat views of many dimensions, true to scale, that say what they hide."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .trajectory import Trajectory

SMALL = 1e-9  # of the largest direction, below which there is none


@dataclass(frozen=True)
class Plane:
    r"""A plane, or a space of three dimensions, through a point.

    Arguments:
        origin: The point, with shape (\*).
        basis: Orthonormal directions, with shape (k, \*).
    """

    origin: Tensor
    basis: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        r"""Returns the coordinates of points, with shape (n, k), from shape (n, \*)."""

        return self.along(points - self.origin)

    def along(self, directions: Tensor) -> Tensor:
        r"""Returns the coordinates of directions, with shape (n, k), from shape (n, \*)."""

        return directions.double().flatten(1) @ self.basis.double().flatten(1).T

    def hidden(self, directions: Tensor) -> Tensor:
        r"""Returns the share of the squared length of directions that it does not show, with shape (n,)."""

        whole = directions.double().flatten(1).square().sum(1)
        shown = self.along(directions).square().sum(1)
        return torch.where(whole > 0, 1 - shown / whole, 0.0).clamp(min=0)

    @staticmethod
    def spanned(origin: Tensor, directions: Sequence[Tensor], dimensions: int = 2) -> "Plane":
        r"""Returns the plane that is nearest to some directions, whatever their lengths.

        Data of as many dimensions is shown as it is. The first axis is that of the first direction.

        Arguments:
            origin: The point, with shape (\*).
            directions: The directions, each with shape (\*). Those of length 0 have no part in it.
            dimensions: 2 or 3.
        """

        if dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, but is {dimensions}.")
        shape, d = origin.shape, origin.numel()
        if d < dimensions:
            raise ValueError(f"data of {d} dimensions has no view of {dimensions}.")
        if d == dimensions:
            basis = torch.eye(d, dtype=torch.float64, device=origin.device)
            return Plane(torch.zeros_like(origin), basis.reshape(d, *shape))
        flat = torch.stack([v.double().flatten() for v in directions])
        sizes = flat.norm(dim=1)
        flat = flat[sizes > SMALL * sizes.max()]
        flat = flat / flat.norm(dim=1, keepdim=True)
        basis = _completed(torch.linalg.svd(flat, full_matrices=False)[2], dimensions)
        basis = _turned(basis, flat[0]) if len(flat) else basis
        return Plane(origin, basis.reshape(dimensions, *shape))


def of_step(trajectory: Trajectory, sample: int, step: int, dimensions: int = 2) -> Plane:
    r"""Returns the plane through the estimate that is spanned by what is at play in one step.

    For classifier-free guidance nothing is hidden but noise: the noisy point and the two predictions make a plane,
    in which the guided estimate lies too, and the step of "ddim" or "ancestral".
    """

    x, D = trajectory.states[step, sample], trajectory.guided[step, sample]
    base = D if trajectory.base is None else trajectory.estimates[trajectory.base][step, sample]
    at_play = [base - x]
    for part in (trajectory.push, trajectory.difference):
        if part is not None:
            at_play.append(part[step, sample])
    at_play += [D - estimate[step, sample] for estimate in trajectory.estimates.values()]
    if trajectory.noise is not None:
        at_play.append(trajectory.noise[step, sample])
    # in the order of importance: what does not fit is hidden
    return Plane.spanned(base, _first(at_play, dimensions), dimensions)


def of_path(trajectory: Trajectory, sample: int, first: int = 0, dimensions: int = 2) -> Plane:
    r"""Returns the plane through the last estimate that shows most of the way of a sample.

    Arguments:
        trajectory: The trajectory.
        sample: Which sample.
        first: The first step that is to be shown.
        dimensions: 2 or 3.
    """

    end = trajectory.guided[-1, sample]
    every = [
        trajectory.states[first:, sample],
        *(e[first:, sample] for e in trajectory.estimates.values()),
    ]
    offsets = (torch.cat(every) - end).double().flatten(1)
    axes = torch.linalg.svd(offsets, full_matrices=False)[2]
    return Plane.spanned(
        end, list(_completed(axes, dimensions).reshape(-1, *end.shape)), dimensions
    )


def _first(directions: list[Tensor], count: int) -> list[Tensor]:
    r"""The first directions that are independent, at most some number of them."""

    kept: list[Tensor] = []
    for v in directions:
        rest = v.double().flatten()
        for u in kept:
            unit = u.double().flatten() / u.double().norm()
            rest = rest - (rest @ unit) * unit
        size = v.double().norm()
        if len(kept) < count and bool(rest.norm() > 1e-6 * size) and bool(size > 0):
            kept.append(rest.reshape(v.shape).to(v))
    return kept or directions[:1]


def _completed(axes: Tensor, count: int) -> Tensor:
    r"""Orthonormal rows, with as many more as are missing."""

    axes = axes[:count]
    missing = count - len(axes)
    if not missing:
        return axes
    d = axes.shape[1]
    free = torch.eye(d, dtype=axes.dtype, device=axes.device)
    free = free - (free @ axes.T) @ axes
    return torch.cat([axes, torch.linalg.svd(free)[2][:missing]])


def _turned(basis: Tensor, first: Tensor) -> Tensor:
    r"""The same plane, of which the first axis is that of a direction."""

    shown = basis @ first
    if not bool(shown.norm() > SMALL):
        return basis
    turn = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    turn = torch.linalg.qr(torch.cat([shown[:, None], turn[:, : len(basis) - 1]], 1))[0]
    turn = turn * torch.sign(turn[:, 0] @ shown)
    return turn.T @ basis
