r"""Methods for equations with additive noise."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .brownian import Brownian
from .problem import SDE, StateField
from .solver import Step
from .stepper import Stepper


class _Plan(NamedTuple):
    h: float
    diffusion: float
    number: int
    t0: float
    t1: float
    field: StateField


@dataclass(frozen=True)
class EulerMaruyama(Stepper):
    r"""Creates the method of Euler and Maruyama, of strong order 1 since the noise is additive.

    .. math:: x' = x + h f(t, x) + g(t) \, (w(t + h) - w(t))

    References:
        | Numerical Solution of SDEs (Kloeden and Platen, 1992), section 10.2
    """

    name: str = "em"
    solves = SDE
    order = 1
    stochastic = True
    calls_per_step = 1

    def plan(self, problem: SDE, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        columns = (
            (t1 - t0).tolist(),
            problem.diffusion(t0).tolist(),
            range(len(t0)),
            t0.tolist(),
            t1.tolist(),
            problem.at(t0, x),
        )
        return [_Plan(*column) for column in zip(*columns, strict=True)]

    def step(self, plan: _Plan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        x = torch.add(x, plan.field(x), alpha=plan.h)
        if noise is not None and plan.diffusion:
            x.add_(noise.increment(plan.number, plan.t0, plan.t1), alpha=plan.diffusion)
        return Step(x)
