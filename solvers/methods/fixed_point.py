r"""The inverse of a one-step method, step by step, by fixed-point iteration.

A step :math:`\Psi` from t to s leads from x' to x. Given x, the iteration

.. math:: x' \leftarrow x' + \big( x - \Psi(x') \big) / \Phi(t, s)

starts where the method itself would lead from s to t. Once it has converged, the way there is the exact inverse
of the way back.

References:
    | Effective Real Image Editing with Accelerated Iterative Diffusion Inversion (Pan et al., 2023),
    | algorithm 1
    | https://arxiv.org/abs/2309.04907
    | ReNoise: Real Image Inversion Through Iterative Noising (Garibi et al., 2024), section 3.2
    | https://arxiv.org/abs/2403.14602
    | Anderson Acceleration for Fixed-Point Iterations (Walker and Ni, 2011), section 2
    | https://doi.org/10.1137/10078356X
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..noise.brownian import Brownian
from ..problem import Problem, SemiLinear
from ..shapes import Scalar, factors
from ..solver import Solver, Step
from .one_step import check_one_step

RIDGE = 1e-12  # relative to the squares of the residuals, where they are linearly dependent


class _Plan(NamedTuple):
    there: object
    back: object
    decay: Scalar


@dataclass(frozen=True)
class FixedPoint(Solver):
    r"""Creates the inverse of a method whose steps need no memory.

    Arguments:
        name: The name of the method.
        method: The method that leads back.
        iterations: The number of iterations per step.
        depth: How many iterates Anderson acceleration combines with each new one.
        average: How many of the last iterates are averaged, as ReNoise does.
    """

    name: str
    method: Solver
    iterations: int = 5
    depth: int = 0
    average: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_step(self.name, self.method)
        for name in ("average", "depth"):
            if getattr(self, name) > self.iterations:
                raise ValueError(
                    f"{name} of {self.name.split(':')[0]} must be at most its iterations, "
                    f"{self.iterations}, but is {getattr(self, name)}."
                )

    @cached_property
    def can(self) -> Abilities:
        cost = self.method.calls_per_step * (1 + self.iterations)
        return replace(
            self.method.can, calls_per_step=cost, takes_eta=False, gaussian=False, adaptive=False
        )

    @property
    def undone_by(self) -> Solver:
        return self.method

    def plan(self, problem: Problem, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        there, back = self.method.plan(problem, t0, t1, x), self.method.plan(problem, t1, t0, x)
        decay: list[Scalar] = [1.0] * len(there)
        if isinstance(problem, SemiLinear):
            decay = factors(problem.linear.decay(t1, t0), x)
        return [_Plan(*column) for column in zip(there, back, decay, strict=True)]

    def step(self, plan: _Plan, x: Tensor, memory: object, noise: Brownian | None) -> Step:
        z = self.method.step(plan.there, x, None, None).x
        iterates: list[Tensor] = []
        residuals: list[Tensor] = []
        for _ in range(self.iterations):
            residual = (x - self.method.step(plan.back, z, None, None).x) / plan.decay
            iterates.append(z + residual)
            residuals.append(residual)
            z = iterates[-1] - self._correction(iterates, residuals)
        if self.average > 1:
            z = torch.stack(iterates[-self.average :]).mean(0)
        return Step(z)

    def _correction(self, iterates: list[Tensor], residuals: list[Tensor]) -> Tensor:
        r"""The correction of the last iterate by Anderson acceleration, for each row separately."""

        depth = min(self.depth, len(iterates) - 1)
        if depth == 0:
            return torch.zeros_like(iterates[-1])
        past = range(-1 - depth, -1)
        moved = torch.stack([(residuals[-1] - residuals[j]).flatten(1) for j in past], 1).double()
        gained = torch.stack([iterates[-1] - iterates[j] for j in past], 1)
        gram = moved @ moved.mT
        right = moved @ residuals[-1].flatten(1)[..., None].double()
        ridge = (
            RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None] + torch.finfo(gram.dtype).tiny
        )
        system = gram + torch.diag_embed(ridge.expand(-1, depth))
        shares = torch.linalg.solve_ex(system, right).result  # solve waits for a device
        return torch.einsum("bk...,bk->b...", gained, shares[..., 0].to(gained))
