r"""The adaptive exponential Adams method: one call per step, variable step and order.

The predictor of order k integrates the polynomial through the last k values of :math:`N`,
written with divided differences,

.. math:: x_p = \Phi(s, t) \, x + \sum_{i < k} \gamma_i \, N[s, s_1, ..., s_i] , \qquad
    \gamma_i = \int_s^t \Phi(u, t) B(u) \prod_{j < i} (u - s_j) \, du .

N is evaluated once, at its end. This gives the corrector of order k + 1,
:math:`x = x_p + \gamma_k \, N[t, s, ..., s_{k-1}]`, whose last term is the local error of the
predictor; the same term at k - 1 and k + 1 says which order allows the largest step. N is not evaluated again at
x; the next step uses the value as it is.

With noise, the order is 1, and the error is the difference between the trapezoidal rule and Euler's.

References:
    | Solving Ordinary Differential Equations I (Hairer et al., 1993), section III.5
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..controller import Caution, Controller
from ..noise.brownian import Brownian
from ..problem import Linear, SemiLinear, StateField
from ..shapes import align
from ..solver import Solver, Step
from .weights import FULL, SHORT, quadrature

FIRST = 0.05  # of the span: the first step, which is rejected where it is too large


class AdamsPlan(NamedTuple):
    r"""The ends of a step, and the field at the later one."""

    linear: Linear
    t0: Tensor
    t1: Tensor
    field: StateField


class AdamsMemory(NamedTuple):
    r"""What a step knows of those before it."""

    differences: Tensor  # (B, K, *)
    times: Tensor  # (B, K), the newest first
    order: Tensor  # of the next step, (B,)
    known: Tensor  # the number of known values, (B,)


@dataclass(frozen=True)
class AdaptiveAdams(Solver):
    r"""Creates the adaptive exponential Adams method.

    Arguments:
        name: The name of the method.
        highest: The highest order of the predictor.
        form: The linear part of the equation.
        stochastic: Whether it is meant for problems with noise. All attempts at a step then see the same
            Brownian path, so that rejections do not bias the noise.

    Examples:
        >>> linear = solvers.SemiLinear(lambda t, x: torch.ones_like(x), solvers.ConstantRate(-1.0))
        >>> times, solver = torch.tensor([0.0, 1.0]), solvers.AdaptiveAdams()
        >>> s = solvers.solve(linear, torch.zeros(1, 1), times, solver, rtol=1e-6, atol=1e-6)
        >>> round(float(s.x), 4)  # 1 - exp(-1)
        0.6321
    """

    name: str = "exponential"
    highest: int = 6
    form: str = "isotropic"
    stochastic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form in ("moments", "measured"):
            raise ValueError(
                f"form={self.form!r} has weights per coordinate, which error control here does not know; "
                "use 'isotropic', 'data' or 'noise'."
            )

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            SemiLinear,
            order=1 if self.stochastic else self.highest,
            calls_per_step=1,
            one_step=False,
            stochastic=self.stochastic,
            takes_eta=self.stochastic,
            adaptive=True,
            fixed=False,
            form=self.form,
            caution=Caution(safety=0.7, growth=2.0),
            calls_at_start=1,
        )

    def begin(
        self, problem: SemiLinear, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, AdamsMemory]:
        value = problem.at(t0[None], x)[0](x)
        differences = value.new_zeros(len(x), self.highest, *x.shape[1:])
        differences[:, 0] = value
        times = t0[:, None].repeat(1, self.highest)
        ones = torch.ones(len(x), dtype=torch.int64)
        return FIRST * (stop - t0).abs(), AdamsMemory(differences, times, ones, ones)

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[AdamsPlan]:
        fields = problem.at(t1, x)
        return [AdamsPlan(problem.linear, *ends) for ends in zip(t0, t1, fields, strict=True)]

    def step(
        self, plan: AdamsPlan, x: Tensor, memory: AdamsMemory, noise: Brownian | None
    ) -> Step:
        linear, t0, t1, field = plan
        order, orders = memory.order, torch.arange(self.highest + 1)
        gamma = integrals(linear, t0, t1, memory.times)
        decay = linear.decay(t0[None], t1[None])[0, :, 0]
        used = torch.where(orders < order[:, None], gamma, 0)[:, :-1]
        base = align(decay.to(x), x) * x
        if noise is not None and self.stochastic:
            std = linear.noise_std(t0[None], t1[None])[0, :, 0] / (t1 - t0).abs().sqrt()
            base = base + align(std.to(x), x) * noise.increment(0, t0, t1)
        predicted = base + combine(used, memory.differences)
        known = torch.arange(self.highest) < memory.known[:, None]
        inverse = inverse_of(t1[:, None] - memory.times, known)
        new = differences_with(field(predicted), memory.differences, inverse)
        error, others = terms(gamma, new, order, memory.known)
        return Step(
            predicted + error,
            AdamsMemory(
                new[:, :-1],
                torch.cat([t1[:, None], memory.times[:, :-1]], dim=1),
                order,
                (memory.known + 1).clamp(max=self.highest + 1),
            ),
            error,
            None if self.stochastic else partial(_between, linear, t0, t1, x, new, memory),
            order + (0.5 if self.stochastic else 1),
            others,
        )

    def recall(self, memory: tuple[Any, ...] | None) -> AdamsMemory | None:
        return None if memory is None else AdamsMemory(*memory)

    def choose(self, memory: AdamsMemory, order: Tensor) -> AdamsMemory:
        if self.highest == 1:
            return memory
        chosen = order - 1  # a predictor of order k has errors of order k + 1
        warming = (memory.known == memory.order + 1) & (chosen >= memory.order)
        chosen = torch.where(warming, memory.order + 1, chosen)
        return memory._replace(order=chosen.clamp(max=self.highest))


def integrals(
    linear: Linear, s: Tensor, t: Tensor, times: Tensor, rule: tuple[Tensor, Tensor] = FULL
) -> Tensor:
    r"""Returns the integrals of the weight times products of distances, with shape (B, K + 1)."""

    h = (t - s)[:, None]
    points, gauss = quadrature(linear, s[None], t[None], linear.decay(s[None], t[None]), rule)
    u = s[:, None] + h * points
    weight = linear.weight(u[None], s[None, :, None], t[None, :, None])[0, ..., 0] * h * gauss
    found = [weight.sum(1)]
    for time in times.split(1, dim=1):
        weight = weight * (u - time)
        found.append(weight.sum(1))
    return torch.stack(found, dim=1)


def inverse_of(gaps: Tensor, known: Tensor) -> Tensor:
    r"""Returns 1 over gaps between known times, and 0 elsewhere."""

    return torch.where(known & (gaps != 0), 1 / gaps, 0)


def terms(
    gamma: Tensor, differences: Tensor, order: Tensor, known: Tensor
) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    r"""Returns the term of an order, and those one below and above, each with its order or 0 if there is none."""

    highest, row, x = gamma.shape[1] - 1, torch.arange(len(gamma)), differences[:, 0]

    def term(k: Tensor) -> Tensor:
        here = k.clamp(max=highest)
        factor = align(gamma[row, here].to(x), x)
        return factor * differences[row.to(x.device), here.to(x.device)]

    lower = torch.where(order > 1, order, 0)
    higher = torch.where(order < known.clamp(max=highest), order + 2, 0)
    return term(order), ((term(order - 1), lower), (term(order + 1), higher))


def combine(coefficients: Tensor, values: Tensor) -> Tensor:
    r"""Returns sums of values with shape (B, K, *), with coefficients per sample."""

    factors = coefficients.to(values).reshape(*coefficients.shape, *(1,) * (values.ndim - 2))
    return (factors * values).sum(1)


def differences_with(value: Tensor, old: Tensor, inverse: Tensor) -> Tensor:
    r"""Returns the divided differences of one more value, from those before it and 1 over its gaps to them."""

    new = [value]
    for i in range(old.shape[1]):
        new.append((new[-1] - old[:, i]) * align(inverse[:, i].to(value), value))
    return torch.stack(new, dim=1)


def _between(
    linear: Linear,
    t0: Tensor,
    t1: Tensor,
    x: Tensor,
    new: Tensor,
    memory: AdamsMemory,
    theta: Tensor,
    rows: Tensor,
) -> Tensor:
    r"""Returns states inside the step, from the polynomials through both its ends."""

    some = rows.to(t0.device)
    start, stop, times = t0[some], t1[some], memory.times[some]
    s = torch.lerp(start, stop, theta.reshape(-1).double().cpu())
    nodes = torch.cat([stop[:, None], times[:, :-1]], dim=1)
    gamma = integrals(linear, start, s, nodes, SHORT)
    used = torch.where(torch.arange(gamma.shape[1]) <= memory.order[some, None], gamma, 0)
    x, new = x[rows], new[rows]
    return align(linear.decay(start[None], s[None])[0, :, 0].to(x), x) * x + combine(used, new)
