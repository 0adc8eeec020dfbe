r"""Gaussian teleportation: Gaussian data with the moments of the data lead from t_max to a lower level, without a call.

A solver goes on from there; the multistep ones "from 0" know that the value of N at t_max is 0 for such data, and
go there in their first step, so that the grid alone says to which level.

References:
    | The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its Applications
    | (Wang and Vastola, 2024), section 5
    | https://arxiv.org/abs/2412.09726
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers.methods.exponential import ExponentialMultistep

from ..distance import GRIDS as NAMES
from .tools import Flow, levels, solve

HEIGHTS = (20, 10, 5)
GRIDS = (*NAMES, *(f"{name} from {height}" for name in ("rho", "tan") for height in HEIGHTS))


@dataclass(frozen=True)
class Free(ExponentialMultistep):
    r"""A method whose first value is 0."""

    def calls(self, steps: int) -> int:
        return steps - 1

    def plan(self, problem, t0, t1, x):
        first, *others = super().plan(problem, t0, t1, x)
        return [first._replace(field=torch.zeros_like), *others]


def run(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, solver: str) -> Tensor:
    name, _, height = grid.partition(" from ")
    if not height:
        raise ValueError("teleportation leads to a level below t_max.")
    at = levels(model, name, calls - 1, float(height))
    flow, top = Flow(model, "moments"), model.process.noise_level(model.process.t_max)
    X = flow.enter(z, top)
    x = flow.leave(flow.step(X, [torch.zeros_like(X)], [top], top, at[0]), at[0])
    return solve(model, x, solver, calls, levels=at)


def from_zero(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, solver: str) -> Tensor:
    known = solvers.get(solver)
    fields = {name: getattr(known, name) for name in ("values", "form", "rules", "known_order")}
    free = Free(f"{solver} from 0", **fields)
    name, _, height = grid.partition(" from ")
    if height:
        top = model.process.noise_level(model.process.t_max)
        return solve(
            model, z, free, calls, levels=[top, *levels(model, name, calls - 1, float(height))]
        )
    return solve(model, z, free, calls, grid=name)


MEMBERS = {
    **{f"teleport {n}": partial(run, solver=n) for n in ("ipndm_3", "moment_ipndm_3")},
    **{f"{n} from 0": partial(from_zero, solver=n)
       for n in ("moment_ipndm_2", "moment_ipndm_3", "moment_ipndm_4", "moment_2")},
}  # fmt: skip
