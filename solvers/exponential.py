r"""Exponential multistep methods.

Over a step of size :math:`h`, variation of constants solves a semi-linear problem as

.. math:: x(t + h) = e^{a h} x(t) - a h \int_0^1 e^{a h (1 - \theta)} N(t + \theta h) \, d\theta
    + \xi .

Replacing :math:`N` by the polynomial through its last :math:`k` values gives the exponential
Adams method of order :math:`k`; order 1 is DDIM. The integrals are exact, in float64, and
worked out for all steps at once. Other published methods differ only in how they weigh the values.

References:
    | Exponential Integrators (Hochbruck and Ostermann, 2010), sections 2.1 and 2.5
    | https://doi.org/10.1017/S0962492910000048
    | Denoising Diffusion Implicit Models (Song et al., 2021), equation (12)
    | https://arxiv.org/abs/2010.02502
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .brownian import Brownian
from .problem import SemiLinear, StateField
from .solver import Step
from .stepper import Stepper

Rule = Callable[[Tensor, Tensor], Tensor]  # nodes (n, k), exponents (n,) -> weights (n, k)


def phi(k: int, z: Tensor) -> Tensor:
    r"""Returns :math:`\varphi_k(z) = \int_0^1 e^{z (1 - \theta)} \theta^{k-1} / (k-1)! \, d\theta`.

    It comes from its recurrence, or from its series where the recurrence cancels.
    """

    series = torch.zeros_like(z)
    for j in reversed(range(20)):  # |z|^20 / 20! < 1e-18 where it is used
        series = series * z + 1 / math.factorial(j + k)
    value = z.exp() if k == 0 else torch.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return torch.where(z.abs() < 1, series, value)


def adams(nodes: Tensor, z: Tensor) -> Tensor:
    r"""Returns the weights that integrate the polynomial through the nodes exactly.

    Arguments:
        nodes: The times of the values as fractions of the step, with shape (n, k).
        z: The exponents :math:`a h`, with shape (n,).
    """

    powers = range(nodes.shape[1])
    moments = torch.stack([-z * math.factorial(i) * phi(i + 1, z) for i in powers], dim=1)
    return torch.linalg.solve(torch.stack([nodes**i for i in powers], dim=1), moments)


def midpoint(nodes: Tensor, z: Tensor) -> Tensor:
    r"""Returns the weights that take the polynomial's value half-way for all of the step.

    With two nodes this is DPM-Solver++ 2M as published.

    References:
        | DPM-Solver++ (Lu et al., 2022), algorithm 2
        | https://arxiv.org/abs/2211.01095
    """

    powers = range(nodes.shape[1])
    values = torch.stack([torch.full_like(z, 0.5**i) for i in powers], dim=1)
    lagrange = torch.linalg.solve(torch.stack([nodes**i for i in powers], dim=1), values)
    return -torch.expm1(z)[:, None] * lagrange


class _Plan(NamedTuple):
    decay: float
    weights: list[float]
    noise_std: float  # per square root of time
    number: int
    t0: float
    t1: float
    field: StateField


@dataclass(frozen=True)
class ExponentialMultistep(Stepper):
    r"""Creates the exponential multistep method of a rule.

    Its first steps have fewer values, so that the first has order 1: this caps the global order
    at 2, unless the first steps are shorter.

    Arguments:
        name: The name of the method.
        order: The number of past values, in [1, 4].
        rule: How they are weighed.
        stochastic: Whether the problem is meant to have noise.

    Raises:
        ValueError: If the order is out of range.
    """

    name: str
    order: int = 2
    rule: Rule = adams
    stochastic: bool = False
    solves = SemiLinear
    calls_per_step = 1

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4:
            raise ValueError(f"order must be in [1, 4], but is {self.order}.")

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        h = t1 - t0
        std = torch.zeros_like(h)
        if problem.noise_std is not None:
            std = problem.noise_std(t0, t1) / h.abs().sqrt()
        columns = (
            (problem.rate * h).exp().tolist(),
            self.weights(problem.rate, t0, h),
            std.tolist(),
            range(len(h)),
            t0.tolist(),
            t1.tolist(),
            problem.at(t0, x),
        )
        return [_Plan(*column) for column in zip(*columns, strict=True)]

    def weights(self, rate: float, t0: Tensor, h: Tensor) -> list[list[float]]:
        r"""Returns the weights of the values in each step, the newest first."""

        rows: list[list[float]] = []
        for k in range(1, self.order + 1):  # steps that know k values: step k - 1, or all others
            steps = slice(k - 1, k if k < self.order else None)
            last = len(t0) - 1
            past = [
                t0[max(0, k - 1 - j) : max(0, last + 1 - j)][: len(t0[steps])] for j in range(k)
            ]
            nodes = (torch.stack(past, dim=1) - t0[steps, None]) / h[steps, None]
            if len(nodes):
                rows += self.rule(nodes, rate * h[steps]).tolist()
        return rows

    def step(
        self, plan: _Plan, x: Tensor, memory: tuple[Tensor, ...] | None, noise: Brownian | None
    ) -> Step:
        values = (plan.field(x), *(memory or ()))[: self.order]
        x = x * plan.decay
        for weight, value in zip(plan.weights, values, strict=False):
            x.add_(value, alpha=weight)
        if noise is not None and plan.noise_std:
            x.add_(noise.increment(plan.number, plan.t0, plan.t1), alpha=plan.noise_std)
        return Step(x, values)
