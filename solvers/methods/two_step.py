r"""Reversible methods for semi-linear problems that link three states, or mix two.

A two-step method is a linear relation between three states,
:math:`x_{i+1} = p \, x_{i-1} + q \, x_i + w \, N(x_i)`, so each outer state follows from the other two. Its
first step is that of DDIM.

References:
    | BELM: Bidirectional Explicit Linear Multi-step Sampler (Wang et al., 2024), equation (18)
    | https://arxiv.org/abs/2410.07273
    | Exact Diffusion Inversion via Bi-directional Integration Approximation (Zhang et al., 2023),
    | equation (18)
    | https://arxiv.org/abs/2307.10829
    | EDICT: Exact Diffusion Inversion via Coupled Transformations (Wallace et al., 2023), equation (14)
    | https://arxiv.org/abs/2211.12446
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities, Instability
from ..noise.brownian import Brownian
from ..problem import Linear, SemiLinear, StateField
from ..shapes import Scalar, factors, scalars
from ..solver import Step
from .interaction import VARIABLES
from .reversible import Pair, Reversible
from .weights import weights

# The coefficients p, q and w of steps through three times, each with shape (n, c) or (n, B, c)
Coefficients = tuple[Tensor, Tensor, Tensor]
Rule = Callable[[Linear, Tensor, Tensor, Tensor], Coefficients]


def ddim(linear: Linear, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the decay of steps from s to t, and the weight of a constant value."""

    decay = linear.decay(s, t)
    return decay, weights(linear, s, t, decay, s[..., None])[..., 0, :]


def belm(variable: str) -> Rule:
    r"""Returns the rule of the leapfrog for steps of any size; in the noise level it is O-BELM.

    .. math:: y_{i+1} = r^2 y_{i-1} + (1 - r^2) y_i + h (1 + r) \, y'(v_i) , \qquad
        h = v_{i+1} - v_i , \quad r = h / (v_i - v_{i-1})

    in the variable v, for states y from which the linear part is taken out.
    """

    return _Belm(variable)


@dataclass(frozen=True)
class _Belm:
    variable: str

    def __call__(self, linear: Linear, before: Tensor, now: Tensor, after: Tensor) -> Coefficients:
        there, _, pace = VARIABLES[self.variable]
        v = [there(linear, t)[..., None] for t in (before, now, after)]
        h = v[2] - v[1]
        r = h / (v[1] - v[0])
        out = linear.decay(now, after)
        slope = linear.weight(now, now, now) * pace(linear, now)[..., None]
        return out * linear.decay(before, now) * r**2, out * (1 - r**2), out * slope * h * (1 + r)


def bdia(gamma: float) -> Rule:
    r"""Returns the rule of BDIA for rising time, and its inverse for falling time.

    .. math:: x_{i+1} = \gamma \big( x_{i-1} - \Delta_{i \to i-1} \big) + (1 - \gamma) x_i + \Delta_{i \to i+1}

    for DDIM's increments :math:`\Delta` at :math:`x_i`; :math:`\gamma = 1` is the leapfrog. In falling time,
    errors grow by :math:`1 / \gamma` per step. (The published states contain the factor alpha.)
    """

    return _Bdia(gamma)


@dataclass(frozen=True)
class _Bdia:
    gamma: float

    def __call__(self, linear: Linear, before: Tensor, now: Tensor, after: Tensor) -> Coefficients:
        gamma, rises = self.gamma, bool((after > now).all())
        low, high = (before, after) if rises else (after, before)
        (back, w_back), (on, w_on) = ddim(linear, now, low), ddim(linear, now, high)
        q, w = on - gamma * back, w_on - gamma * w_back
        if rises:
            return torch.full_like(q, gamma), q, w
        return torch.full_like(q, 1 / gamma), -q / gamma, -w / gamma


def _reversible(order: float, cost: int, form: str, unstable: Instability) -> Abilities:
    return Abilities(
        SemiLinear,
        order=order,
        calls_per_step=cost,
        one_step=False,
        unstable=unstable,
        takes_eta=False,
        form=form,
        reversible=True,
    )


class _Line(NamedTuple):
    p: Scalar | None  # none at the first step
    q: Scalar
    w: Scalar
    field: StateField


@dataclass(frozen=True)
class TwoStep(Reversible):
    r"""Creates the two-step method with the given rule.

    Arguments:
        name: The name of the method.
        rule: The rule for its coefficients.
        form: The linear part of the equation.
        order: The order of the method.
        unstable: Where its own errors grow, if they do.
    """

    name: str
    rule: Rule
    form: str = "noise"
    order: float = 2
    unstable: Instability = ""

    @cached_property
    def can(self) -> Abilities:
        return _reversible(self.order, 1, self.form, self.unstable)

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Line]:
        linear, fields = problem.linear, problem.at(t0, x)
        first = [factors(c, x)[0] for c in ddim(linear, t0[:1], t1[:1])]
        plans = [_Line(None, first[0], first[1], fields[0])]
        if len(t0) > 1:
            columns = (factors(c, x) for c in self.rule(linear, t0[:-1], t0[1:], t1[1:]))
            rest = zip(*columns, fields[1:], strict=True)
            plans += [_Line(*column) for column in rest]
        return plans

    def step(self, plan: _Line, x: Tensor, memory: Pair, noise: Brownian | None) -> Step:
        if plan.p is None and memory is not None:  # the state after the first step is known
            return Step(memory[0], (x,))
        new = plan.q * x + plan.w * plan.field(x)
        if plan.p is not None and memory is not None:
            new = new + plan.p * memory[0]
        return Step(new, (x,))


class _Mix(NamedTuple):
    rises: bool
    decay: Scalar
    weight: Scalar
    ratio: Scalar
    field: StateField  # at the time of the step that comes first as time rises


@dataclass(frozen=True)
class Edict(Reversible):
    r"""Creates EDICT: alternating DDIM steps of two states, which are then mixed.

    As time rises, with DDIM's decay a and weight b,

    .. math:: x_1 = a x + b N(y) , \quad y_1 = a y + b N(\tilde x_1) , \quad
        x' = \rho x_1 + (1 - \rho) y_1 , \quad y' = \rho y_1 + (1 - \rho) x' ;

    steps with falling time undo it. The second call is at the earlier time, too, but with :math:`\tilde x_1`
    rescaled between the units of the state at the two times.

    Arguments:
        name: The name of the method.
        mix: The :math:`\rho` in (1/2, 1].
        form: The linear part of the equation.
    """

    name: str = "edict"
    mix: float = 0.93
    form: str = "noise"

    @cached_property
    def can(self) -> Abilities:
        return _reversible(1, 2, self.form, "as the clock falls")

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Mix]:
        rises = not bool((t1 < t0).any())
        low, high = (t0, t1) if rises else (t1, t0)
        decay, weight = (factors(c, x) for c in ddim(problem.linear, low, high))
        ratio = scalars(problem.sizes(high)[0] / problem.sizes(low)[0], x)
        columns = zip(decay, weight, ratio, problem.at(low, x), strict=True)
        return [_Mix(rises, *column) for column in columns]

    def step(self, plan: _Mix, x: Tensor, memory: Pair, noise: Brownian | None) -> Step:
        y, rho = x if memory is None else memory[0], self.mix
        rises, a, b, ratio, N = plan
        if rises:
            x = a * x + b * N(y)
            y = a * y + b * N(ratio * x)
            x = rho * x + (1 - rho) * y
            return Step(x, (rho * y + (1 - rho) * x,))
        y = (y - (1 - rho) * x) / rho
        x = (x - (1 - rho) * y) / rho
        y = (y - b * N(ratio * x)) / a
        return Step((x - b * N(y)) / a, (y,))
