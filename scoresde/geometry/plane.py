r"""Plane views of many dimensions, true to scale, which state how much they hide."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .trajectory import Trajectory

SMALL = 1e-6  # of a direction: if a smaller part is new, it counts as dependent


@dataclass(frozen=True)
class Plane:
    r"""A plane, or a three-dimensional space, through a point.

    Arguments:
        origin: The point, with shape (\*).
        basis: Orthonormal directions, with shape (k, \*).

    Examples:
        >>> plane = ss.geometry.Plane(torch.zeros(3), torch.eye(3)[:2])
        >>> plane(torch.tensor([[1.0, 2.0, 2.0]])).tolist()
        [[1.0, 2.0]]
        >>> round(float(plane.hidden(torch.tensor([[1.0, 2.0, 2.0]]))), 4)  # 4 / 9
        0.4444
    """

    origin: Tensor
    basis: Tensor

    def __repr__(self) -> str:
        return (
            f"Plane({len(self.basis)} directions in samples of shape {tuple(self.origin.shape)})"
        )

    def __call__(self, points: Tensor) -> Tensor:
        r"""Returns the coordinates of points, with shape (n, k), from shape (n, \*)."""

        return self.along(points - self.origin)

    def along(self, directions: Tensor) -> Tensor:
        r"""Returns the coordinates of directions, with shape (n, k), from shape (n, \*)."""

        return directions.double().flatten(1) @ self.basis.double().flatten(1).T

    def hidden(self, directions: Tensor) -> Tensor:
        r"""Returns the fraction of the squared length of directions that it does not show, with shape (n,)."""

        whole = directions.double().flatten(1).square().sum(1)
        shown = self.along(directions).square().sum(1)
        return torch.where(whole > 0, 1 - shown / whole, 0.0).clamp(min=0)

    @staticmethod
    def spanned(origin: Tensor, directions: Sequence[Tensor], dimensions: int = 2) -> "Plane":
        r"""Returns the plane of the first directions that are independent, whatever their lengths.

        Its first axis is along the first direction. Data with the same number of dimensions is shown as it is.

        Arguments:
            origin: The point, with shape (\*).
            directions: The directions, each with shape (\*). Those of length 0 are ignored.
            dimensions: 2 or 3.
        """

        if dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, but is {dimensions}.")
        shape, d = origin.shape, origin.numel()
        if d < dimensions:
            raise ValueError(f"data of {d} dimensions has no view of {dimensions}.")
        own = torch.eye(d, dtype=torch.float64, device=origin.device)
        if d == dimensions:
            return Plane(torch.zeros_like(origin), own.reshape(d, *shape))
        axes: list[Tensor] = []
        for v in (*(v.double().flatten() for v in directions), *own):
            rest = v - sum(((v @ axis) * axis for axis in axes), torch.zeros_like(v))
            if len(axes) < dimensions and bool(rest.norm() > SMALL * v.norm()):
                axes.append(rest / rest.norm())
        return Plane(origin, torch.stack(axes).reshape(dimensions, *shape))


def of_step(trajectory: Trajectory, sample: int, step: int, dimensions: int = 2) -> Plane:
    r"""Returns the plane through the estimate that is spanned by the vectors of one step.

    For classifier-free guidance, it hides nothing but noise: the noisy point and the two predictions span a
    plane that also contains the guided estimate, and the step of "ddim" or "ancestral".
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
    return Plane.spanned(base, at_play, dimensions)


def of_path(trajectory: Trajectory, sample: int, first: int = 0, dimensions: int = 2) -> Plane:
    r"""Returns the plane through the last estimate that shows most of the path of a sample.

    Arguments:
        trajectory: The trajectory.
        sample: The index of the sample.
        first: The first step to show.
        dimensions: 2 or 3.
    """

    end = trajectory.guided[-1, sample]
    every = [
        trajectory.states[first:, sample],
        *(e[first:, sample] for e in trajectory.estimates.values()),
    ]
    offsets = (torch.cat(every) - end).double().flatten(1)
    axes = torch.linalg.svd(offsets, full_matrices=False)[2]
    return Plane.spanned(end, list(axes.reshape(-1, *end.shape)), dimensions)
