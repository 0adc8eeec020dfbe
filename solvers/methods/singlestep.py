r"""Exponential Runge-Kutta methods, which use only the values of :math:`N` inside a step.

A method is data: the places of its stages, and the values that each stage and the result use, with their rules.
The weights are those of multistep methods, with stages in place of past steps.

References:
    | Exponential Integrators (Hochbruck and Ostermann, 2010), section 2.3
    | https://doi.org/10.1017/S0962492910000048
    | DPM-Solver (Lu et al., 2022), algorithms 1 and 2, and appendix C for 12 and 23
    | https://arxiv.org/abs/2206.00927
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..controller import Caution, Controller
from ..noise.brownian import Brownian
from ..problem import Linear, SemiLinear, StateField
from ..shapes import Scalar, add_product, factors
from ..solver import Solver, Step
from .weights import Rule, exact, midpoint, weights


@dataclass(frozen=True)
class Stages:
    r"""The data of a method; no stage may use a value that is not yet known.

    Arguments:
        places: The fractions of the step at which the values are, the first being 0.
        uses: For each place except the first, the indices of the values that its state is computed from.
        final: The indices of the values that the result is computed from.
        order: The order of the result.
        rule: The rule that weights the values of the result.
        low: The indices of the values of an embedded result of lower order, for the error estimate.
        low_rule: The rule that weights them.

    Examples:
        >>> midpoint = solvers.Stages((0.0, 1 / 2), ((0,),), (1,), order=2)
        >>> midpoint.places
        (0.0, 0.5)
    """

    places: tuple[float, ...]
    uses: tuple[tuple[int, ...], ...]
    final: tuple[int, ...]
    order: int
    rule: Rule = exact
    low: tuple[int, ...] = ()
    low_rule: Rule = midpoint

    def __post_init__(self) -> None:
        if self.places[0] != 0 or len(self.uses) != len(self.places) - 1:
            raise ValueError(f"places must start at 0, with uses for the others: {self}.")
        for stage, used in enumerate((*self.uses, self.final), start=1):
            if not used or max(used) >= stage:
                raise ValueError(f"stage {stage} can use values 0 to {stage - 1}, not {used}.")


ONE = Stages((0.0,), (), (0,), order=1)
TWO = Stages((0.0, 1 / 2), ((0,),), (1,), order=2)
THREE = Stages((0.0, 1 / 3, 2 / 3), ((0,), (0, 1)), (0, 2), order=3, low=(0, 1))
TRAPEZOID = Stages((0.0, 1.0), ((0,),), (0, 1), order=2)


class _Stage(NamedTuple):
    decay: Scalar
    weights: Sequence[Scalar]
    noise_std: Scalar  # per square root of time


class _Plan(NamedTuple):
    stages: Stages
    fields: Sequence[StateField]
    steps: Sequence[_Stage]  # to each place except the first, and to the end
    low: Sequence[Scalar]
    number: int
    t0: Tensor
    t1: Tensor
    linear: Linear


@dataclass(frozen=True)
class ExponentialRungeKutta(Solver):
    r"""Creates the exponential Runge-Kutta method with the given stages.

    Arguments:
        name: The name of the method.
        stages: The stages.
        form: The linear part: "data", "noise" or "isotropic".
        variable: The variable in which N is approximated by a polynomial.
        stochastic: Whether it is meant for problems with noise.
        ending: The stages of the last steps, if they differ.
        adaptive: Whether it is meant for adaptive steps.

    Examples:
        >>> stages = solvers.Stages((0.0, 1 / 2), ((0,),), (1,), order=2)
        >>> solver = solvers.ExponentialRungeKutta("mine", stages, "data")
        >>> solver.order, solver.calls_per_step
        (2, 2)
    """

    name: str
    stages: Stages
    form: str = "noise"
    variable: str = "clock"
    stochastic: bool = False
    ending: tuple[Stages, ...] = ()
    adaptive: bool = False

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            SemiLinear,
            order=1 if self.stochastic else self.stages.order,
            calls_per_step=len(self.stages.places),
            cap=min((1 + stages.order for stages in self.ending), default=math.inf),
            stochastic=self.stochastic,
            one_normal=False,
            takes_eta=not self.adaptive,  # its error estimate ignores noise
            adaptive=self.adaptive,
            fixed=not self.adaptive,
            form=self.form,
            caution=Caution(accept=1.9, smooth=True),
            calls_at_start=0,
        )

    def calls(self, steps: int) -> int:
        return sum(len(stages.places) for stages in self._each(steps))

    def _each(self, steps: int) -> list[Stages]:
        ending = self.ending[-steps:]
        return [self.stages] * (steps - len(ending)) + list(ending)

    def begin(
        self, problem: SemiLinear, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, None]:
        return torch.full_like(t0, 0.05).minimum((stop - t0).abs()), None

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        plans, each = [], self._each(len(t0))
        numbers = range(len(t0))
        for stages in dict.fromkeys(each):  # all steps with the same stages at once
            own = [i for i in numbers if each[i] == stages]
            for i, plan in zip(own, self._plan(problem, stages, t0[own], t1[own], x), strict=True):
                plans.append(plan._replace(number=i))
        return sorted(plans, key=lambda plan: plan.number)

    def _plan(
        self, problem: SemiLinear, stages: Stages, t0: Tensor, t1: Tensor, x: Tensor
    ) -> list[_Plan]:
        times = [t1 if c == 1 else torch.lerp(t0, t1, c) for c in stages.places]
        fields = [problem.at(t, x) for t in times]
        linear, steps = problem.linear, []

        def by_step(
            end: Tensor, decay: Tensor, used: Sequence[int], rule: Rule
        ) -> list[Sequence[Scalar]]:
            nodes = torch.stack([times[i] for i in used], dim=-1)
            w = weights(linear, t0, end, decay, nodes, rule, self.variable)
            return list(zip(*(factors(w[..., j, :], x) for j in range(len(used))), strict=True))

        uses = (*stages.uses, stages.final)
        rules = [exact] * len(stages.uses) + [stages.rule]
        for end, used, rule in zip((*times[1:], t1), uses, rules, strict=True):
            std = linear.noise_std(t0, end) / (end - t0).abs().sqrt()[..., None]
            decay = linear.decay(t0, end)
            by_value = by_step(end, decay, used, rule)
            columns = zip(factors(decay, x), by_value, factors(std, x), strict=True)
            steps.append([_Stage(*column) for column in columns])
        low = by_step(t1, decay, stages.low, stages.low_rule) if self.adaptive else [[]] * len(t0)
        rows = zip(zip(*fields, strict=True), zip(*steps, strict=True), low, t0, t1, strict=True)
        return [_Plan(stages, *row[:3], 0, *row[3:], linear) for row in rows]

    def step(self, plan: _Plan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        stages, values = plan.stages, [plan.fields[0](x)]
        uses = (*stages.uses, stages.final)
        random: list[Tensor] = []
        if noise is not None:
            inside = (*stages.places[1:], 1.0)
            random = noise.increments(plan.number, plan.t0, plan.t1, inside)
        for i, (stage, used) in enumerate(zip(plan.steps, uses, strict=True)):
            y = _add(x * stage.decay, stage.weights, values, used)
            if random:
                add_product(y, random[i], stage.noise_std)
            if i < len(stages.uses):
                values.append(plan.fields[i + 1](y))
        if not self.adaptive:
            return Step(y)
        low = _add(x * plan.steps[-1].decay, plan.low, values, stages.low)
        between = partial(self._between, plan, x, values)
        return Step(y, error=y - low, interpolate=between)

    def _between(
        self, plan: _Plan, x: Tensor, values: Sequence[Tensor], theta: Tensor, rows: Tensor
    ) -> Tensor:
        r"""Returns states inside the step, from the polynomials through all stages."""

        some = rows.to(plan.t0.device)
        t0, t1, x = plan.t0[None, some], plan.t1[None, some], x[rows]
        s = torch.lerp(t0, t1, theta.reshape(1, -1).double().cpu())
        nodes = torch.stack([torch.lerp(t0, t1, c) for c in plan.stages.places], dim=-1)
        decay = plan.linear.decay(t0, s)
        w = weights(plan.linear, t0, s, decay, nodes, exact, self.variable)
        each = [factors(w[..., j, :], x)[0] for j in range(len(values))]
        [shrunk] = factors(decay, x)
        values = [value[rows] for value in values]
        return _add(x * shrunk, each, values, range(len(values)))


def _add(
    x: Tensor, coefficients: Sequence[Scalar], values: Sequence[Tensor], used: Sequence[int]
) -> Tensor:
    for weight, i in zip(coefficients, used, strict=True):
        add_product(x, values[i], weight)
    return x
