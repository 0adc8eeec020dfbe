r"""Explicit Runge-Kutta methods: a method is a tableau, and one step function serves them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..noise.brownian import Brownian
from ..problem import ODE, StateField
from ..shapes import Scalar, scalars
from ..solver import Solver, Step


@dataclass(frozen=True)
class Tableau:
    r"""A Butcher tableau, which is checked for consistency.

    Arguments:
        name: The name of the method.
        a: The weights of earlier stages in each stage.
        b: The weights of the stages in the result.
        order: The order of the result.
        b_low: The weights of an embedded method of one order less, for the error estimate.
        dense: The coefficients of :math:`\theta, \theta^2, ...` in each stage's weight at a fraction
            :math:`\theta` of the step.

    Examples:
        >>> heun = solvers.Tableau("mine", a=((), (1.0,)), b=(1 / 2, 1 / 2), order=2)
        >>> heun.c[1]
        1.0
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int
    b_low: tuple[float, ...] | None = None
    dense: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        for weights in (self.b, self.b_low or self.b):
            if len(weights) != len(self.a) or abs(sum(weights) - 1) > 1e-12:
                raise ValueError(f"{self.name} needs {len(self.a)} weights of sum 1: {weights}.")
        if any(len(row) != i for i, row in enumerate(self.a)):
            raise ValueError(f"{self.name} is not explicit: row i of a must have i entries.")
        if self.dense is not None:
            ends = [sum(row) for row in self.dense]
            if max(abs(e - w) for e, w in zip(ends, self.b, strict=True)) > 1e-12:
                raise ValueError(f"{self.name} must interpolate to its result, not {ends}.")

    @property
    def c(self) -> tuple[float, ...]:
        r"""The places of the stages, as fractions of the step."""

        return tuple(round(sum(row), 12) for row in self.a)  # a stage at the end is at 1 itself

    @property
    def first_same_as_last(self) -> bool:
        r"""Whether the last stage is the first stage of the next step."""

        return self.a[-1] == self.b[:-1] and self.b[-1] == 0 and len(self.b) > 1


class _Plan(NamedTuple):
    h: Scalar
    fields: Sequence[StateField]


@dataclass(frozen=True)
class RungeKutta(Solver):
    r"""Creates the explicit Runge-Kutta method of a tableau.

    It follows a grid, or chooses its steps by tolerances if the tableau has an embedded method.

    Examples:
        >>> heun = solvers.RungeKutta(solvers.Tableau("mine", ((), (1.0,)), (1 / 2, 1 / 2), order=2))
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 1.0])
        >>> float(solvers.solve(decay, torch.ones(1, 1), times, heun).x)  # 1 - 1 + 1 / 2
        0.5
    """

    tableau: Tableau

    @property
    def name(self) -> str:
        return self.tableau.name

    @cached_property
    def can(self) -> Abilities:
        tableau = self.tableau
        return Abilities(
            ODE,
            order=tableau.order,
            calls_per_step=len(tableau.b) - tableau.first_same_as_last,
            adaptive=tableau.b_low is not None,
        )

    def calls(self, steps: int) -> int:
        return steps * self.calls_per_step + self.tableau.first_same_as_last

    def plan(self, problem: ODE, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        stages = []
        for c in self.tableau.c:  # the end of a step is t1 itself, not t0 + h rounded
            times = t0 if c == 0 else t1 if c == 1 else torch.lerp(t0, t1, c)
            stages.append(problem.at(times, x))
        return [_Plan(h, fields) for h, *fields in zip(scalars(t1 - t0, x), *stages, strict=True)]

    def step(self, plan: _Plan, x: Tensor, memory: Tensor | None, noise: Brownian | None) -> Step:
        h, tableau = plan.h, self.tableau
        k = [plan.fields[0](x) if memory is None else memory]
        for a, field in zip(tableau.a[1:], plan.fields[1:], strict=True):
            k.append(field(_add(x, h, a, k)))
        x1 = _add(x, h, tableau.b, k)
        memory = k[-1] if tableau.first_same_as_last else None
        if tableau.b_low is None:
            return Step(x1, memory)
        difference = tuple(b - low for b, low in zip(tableau.b, tableau.b_low, strict=True))
        error = _add(torch.zeros_like(x), h, difference, k)
        return Step(x1, memory, error, partial(self._interpolate, x, x1, h, k))

    def _interpolate(
        self, x0: Tensor, x1: Tensor, h: Scalar, k: list[Tensor], theta: Tensor, rows: Tensor
    ) -> Tensor:
        x0, x1, k = x0[rows], x1[rows], [slope[rows] for slope in k]
        h = h[rows] if isinstance(h, Tensor) else h
        if self.tableau.dense is None:  # the cubic through both ends, with their slopes
            bump = theta * (1 - theta) * h
            cubic = theta**2 * (3 - 2 * theta)
            return x0 + cubic * (x1 - x0) + bump * ((1 - theta) * k[0] - theta * k[-1])
        for row, slope in zip(self.tableau.dense, k, strict=True):
            weight = sum(p * theta ** (i + 1) for i, p in enumerate(row))
            x0 = x0 + h * weight * slope
        return x0


def _add(x: Tensor, h: Scalar, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    for weight, slope in zip(weights, k, strict=True):
        if weight and isinstance(h, float):
            x = torch.add(x, slope, alpha=h * weight)
        elif weight:
            x = torch.addcmul(x, h, slope, value=weight)  # type: ignore[arg-type]
    return x


TABLEAUS = (
    Tableau("euler", a=((),), b=(1.0,), order=1),
    Tableau("midpoint", a=((), (1 / 2,)), b=(0.0, 1.0), order=2),
    Tableau("heun", a=((), (1.0,)), b=(1 / 2, 1 / 2), order=2),
    Tableau(
        "rk4",
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        order=4,
    ),
    Tableau(
        "bosh3",
        a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b=(2 / 9, 1 / 3, 4 / 9, 0.0),
        b_low=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
        order=3,
    ),
    Tableau(
        "dopri5",
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        b_low=(
            5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40
        ),
        order=5,
        dense=(  # of order 4: Hairer et al. (1993), section II.6
            (1.0, -1337 / 480, 1039 / 360, -1163 / 1152),
            (0.0, 0.0, 0.0, 0.0),
            (0.0, 4216 / 1113, -18728 / 3339, 7580 / 3339),
            (0.0, -27 / 16, 9 / 2, -415 / 192),
            (0.0, -2187 / 8480, 2673 / 2120, -8991 / 6784),
            (0.0, 33 / 35, -319 / 105, 187 / 84),
            (0.0, 0.0, 0.0, 0.0),
        ),
    ),
)  # fmt: skip
