r"""Runge-Kutta methods for equations with additive noise: here, too, a method is a tableau.

References:
    | Numerical Solution of SDEs (Kloeden and Platen, 1992), section 10.2, for "em"
    | Runge-Kutta Methods for the Strong Approximation of SDEs (Roessler, 2010), table 6.1, for "sra1"
    | https://doi.org/10.1137/09076636X
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..noise.brownian import Brownian
from ..problem import SDE, StateField
from ..shapes import Factor, Scalar, add_product, scalars
from ..solver import Solver, Step
from .runge_kutta import Tableau

Noise = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class NoisyTableau:
    r"""A Butcher tableau with noise, which is checked for consistency.

    Each stage and the result receive :math:`\sum g(t + c h) (p \, \Delta w + q \, u)` with
    :math:`u = \int (w - w(t)) \, ds / h`, for some triples (c, p, q).

    Arguments:
        drift: The tableau of the drift.
        noise: The triples of each stage, followed by those of the result.
        order: The strong order.

    Examples:
        >>> euler = solvers.Tableau("mine", a=((),), b=(1.0,), order=1)
        >>> tableau = solvers.NoisyTableau(euler, noise=((), ((0.0, 1.0, 0.0),)), order=1.0)
        >>> tableau.integral
        False
    """

    drift: Tableau
    noise: tuple[Noise, ...]
    order: float

    def __post_init__(self) -> None:
        if len(self.noise) != len(self.drift.a) + 1:
            raise ValueError(f"{self.drift.name} needs noise for each stage and the result.")
        whole, between = (sum(triple[i] for triple in self.noise[-1]) for i in (1, 2))
        if abs(whole - 1) > 1e-12 or abs(between) > 1e-12:
            raise ValueError(f"{self.drift.name} must end with the increment: {self.noise[-1]}.")

    @property
    def places(self) -> tuple[float, ...]:
        r"""The fractions of the step at which the diffusion is needed."""

        return tuple(sorted({c for triples in self.noise for c, _, _ in triples}))

    @property
    def gaussian(self) -> bool:
        r"""Whether noise enters the result alone, and so after all evaluations of the drift."""

        return not self.integral and not any(self.noise[:-1])

    @property
    def integral(self) -> bool:
        r"""Whether it needs the integral of the Brownian motion."""

        return any(q for triples in self.noise for _, _, q in triples)


class _Plan(NamedTuple):
    h: Scalar
    diffusion: dict[float, Factor]
    number: int
    t0: Tensor
    t1: Tensor
    fields: Sequence[StateField]


@dataclass(frozen=True)
class StochasticRungeKutta(Solver):
    r"""Creates the Runge-Kutta method with a tableau for drift and noise.

    Examples:
        >>> euler = solvers.Tableau("mine", a=((),), b=(1.0,), order=1)
        >>> noisy = solvers.NoisyTableau(euler, noise=((), ((0.0, 1.0, 0.0),)), order=1.0)
        >>> solver = solvers.StochasticRungeKutta(noisy)
        >>> solver.name, solver.can.stochastic
        ('mine', True)
    """

    tableau: NoisyTableau

    @property
    def name(self) -> str:
        return self.tableau.drift.name

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            SDE,
            order=self.tableau.order,
            calls_per_step=len(self.tableau.drift.b),
            stochastic=True,
            one_normal=not self.tableau.integral,
            gaussian=self.tableau.gaussian,
        )

    def plan(self, problem: SDE, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        def at(c: float) -> Tensor:
            return t0 if c == 0 else t1 if c == 1 else torch.lerp(t0, t1, c)

        fields = [problem.at(at(c), x) for c in self.tableau.drift.c]
        places = self.tableau.places
        diffusion = [problem.noise_factors(at(c), x) for c in places]
        by_step = [dict(zip(places, g, strict=True)) for g in zip(*diffusion, strict=True)]
        steps = range(len(t0)), t0, t1, zip(*fields, strict=True)
        columns = zip(scalars(t1 - t0, x), by_step, *steps, strict=True)
        return [_Plan(*column) for column in columns]

    def step(self, plan: _Plan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        drift, k = self.tableau.drift, list[Tensor]()
        random: tuple[Tensor, ...] = ()
        if noise is not None and any(
            not isinstance(g, float) or g for g in plan.diffusion.values()
        ):
            random = _random(plan, noise, self.tableau.integral)
        rows = zip((*drift.a, drift.b), self.tableau.noise, strict=True)
        for stage, (weights, triples) in enumerate(rows):
            y = x.clone() if weights or triples else x
            for weight, slope in zip(weights, k, strict=True):
                add_product(y, slope, plan.h * weight)
            for c, *coefficients in triples:
                for coefficient, part in zip(coefficients, random, strict=False):
                    if coefficient:
                        add_product(y, part, plan.diffusion[c] * coefficient)
            if stage < len(plan.fields):
                k.append(plan.fields[stage](y))
        return Step(y)


def _random(plan: _Plan, noise: Brownian, integral: bool) -> tuple[Tensor, ...]:
    if not integral:
        return (noise.increment(plan.number, plan.t0, plan.t1),)
    w, area = noise.increment_and_integral(plan.number, plan.t0, plan.t1)
    return w, area / plan.h


NOISY_TABLEAUS = (
    NoisyTableau(
        Tableau("em", a=((),), b=(1.0,), order=1),
        noise=((), ((0.0, 1.0, 0.0),)),
        order=1.0,  # since the noise is additive
    ),
    NoisyTableau(
        Tableau("stochastic_heun", a=((), (1.0,)), b=(1 / 2, 1 / 2), order=2),
        noise=((), ((0.0, 1.0, 0.0),), ((0.0, 1 / 2, 0.0), (1.0, 1 / 2, 0.0))),
        order=1.0,
    ),
    NoisyTableau(
        Tableau("sra1", a=((), (3 / 4,)), b=(1 / 3, 2 / 3), order=2),
        noise=((), ((1.0, 0.0, 3 / 2),), ((1.0, 1.0, -1.0), (0.0, 0.0, 1.0))),
        order=1.5,
    ),
)
