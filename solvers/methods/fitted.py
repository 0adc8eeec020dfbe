r"""The adaptive exponential Adams method in a linear part that each sample fits to its own path.

The equation may be written with any member of a family of linear parts, around any centre c,

.. math:: N = a \, (x - c) + b \, (y - c) ,

where y is the same for all members. Each step takes the member and the centre for which N vanishes at the last two
values, as if the equation were linear between them, and integrates what is left by a polynomial, as
:mod:`solvers.methods.adams` does. The choice changes no solution, since every member states the same equation;
where samples are near a mode of its own scale, N is nearly 0, and steps are long.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..controller import Caution, Controller
from ..noise.brownian import Brownian
from ..problem import LinearFamily, SemiLinear
from ..shapes import align
from ..solver import Step
from .adams import (
    AdamsPlan,
    AdaptiveAdams,
    combine,
    differences_with,
    integrals,
    inverse_of,
    terms,
)
from .weights import SHORT


class _Memory(NamedTuple):
    values: Tensor  # y, the newest first, (B, K, *)
    states: Tensor  # at which they were evaluated, (B, K, *)
    times: Tensor  # (B, K)
    order: Tensor  # of the next step, (B,)
    known: Tensor  # the number of known values, (B,)
    parameter: Tensor  # of the next step's linear part, (B,)


class _Fit(NamedTuple):
    r"""The equation of one step in the linear parts of its samples."""

    linear: LinearFamily  # for times with shape (n, B, m)
    state: Tensor  # the newest
    offset: Tensor  # of it from the centre, which may be far away
    differences: Tensor  # of N, (B, K, *)


@dataclass(frozen=True)
class FittedAdams(AdaptiveAdams):
    r"""Creates the adaptive exponential Adams method with a fitted linear part.

    For a problem whose linear part belongs to no family, this is :class:`AdaptiveAdams`.

    Arguments:
        name: The name of the method.
        highest: The highest order of the predictor.
        form: The linear part of the first step.

    Examples:
        >>> model = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.1)
        >>> z = model.process.prior_sample((4, 1), seed=0)
        >>> plain, fitted = (ss.decode(model, z, solver=s) for s in ("exponential", "exponential_fitted"))
        >>> bool(fitted.calls.sum() < plain.calls.sum())
        True
    """

    name: str = "exponential_fitted"
    highest: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stochastic:
            raise ValueError("stochastic=True is not for a fitted linear part; use AdaptiveAdams.")

    @cached_property
    def can(self) -> Abilities:
        return replace(super().can, caution=Caution(safety=0.6, growth=2.0))

    def begin(
        self, problem: SemiLinear, controller: Controller, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, Any]:
        h, begun = super().begin(problem, controller, t0, stop, x)
        linear = problem.linear
        if not isinstance(linear, LinearFamily):
            return h, begun
        values, states = torch.zeros_like(begun.differences), torch.zeros_like(begun.differences)
        values[:, 0], states[:, 0] = _value(linear, t0, x, begun.differences[:, 0]), x
        parameter = linear.parameter.expand(len(x)).clone()
        return h, _Memory(values, states, begun.times, begun.order, begun.known, parameter)

    def step(self, plan: AdamsPlan, x: Tensor, memory: Any, noise: Brownian | None) -> Step:
        linear, t0, t1, field = plan
        if not isinstance(linear, LinearFamily):
            return super().step(plan, x, memory, noise)
        fit, order = _fitted(linear, memory), memory.order
        gamma = integrals(fit.linear, t0, t1, memory.times)
        predicted = _advanced(fit, t0, t1, x, gamma, order - 1, fit.differences)
        value = _value(linear, t1, predicted, field(predicted))
        known = torch.arange(self.highest) < memory.known[:, None]
        inverse = inverse_of(t1[:, None] - memory.times, known)
        ends = (t1[:, None], predicted[:, None], value[:, None])
        latest = _remainder(fit.linear, *ends, fit.state, fit.offset)[:, 0]
        new = differences_with(latest, fit.differences, inverse)
        error, others = terms(gamma, new, order, memory.known)
        end = _pushed(memory, t1, predicted, value)
        return Step(
            predicted + error,
            end._replace(parameter=_parameter(linear, end)),
            error,
            partial(_between, fit, t0, t1, x, new, memory),
            order + 1,
            others,
        )

    def recall(self, memory: tuple[Any, ...] | None) -> Any:
        if memory is None or len(memory) < len(_Memory._fields):
            return super().recall(memory)
        return _Memory(*memory)


def _value(linear: LinearFamily, t: Tensor, x: Tensor, remainder: Tensor) -> Tensor:
    r"""Returns y from N in the linear part of the problem."""

    a, b = (f[0, :, 0].to(x) for f in linear.remainder(t[None]))
    return (remainder - align(a, x) * x) / align(b, x)


def _remainder(
    linear: LinearFamily, t: Tensor, x: Tensor, value: Tensor, state: Tensor, offset: Tensor
) -> Tensor:
    r"""Returns N at n times per sample, with shape (B, n, *)."""

    a, b = (f[0, :, :, 0] for f in linear.remainder(t[None]))
    both, state = _beside(a + b, x) * offset[:, None], state[:, None]
    return _beside(a, x) * (x - state) + _beside(b, x) * (value - state) + both


def _beside(factor: Tensor, x: Tensor) -> Tensor:
    return factor.to(x).reshape(*factor.shape, *(1,) * (x.ndim - 2))


def _fitted(linear: LinearFamily, memory: _Memory) -> _Fit:
    own, (values, states) = linear.member(memory.parameter), (memory.values, memory.states)
    a, b = (f[0, :, 0, 0] for f in own.remainder(memory.times[None, :, :1]))
    state = states[:, 0]
    offset = align((b / (a + b)).to(state), state) * (state - values[:, 0])
    rows = list(_remainder(own, memory.times, states, values, state, offset).unbind(1))
    differences = rows[:1]
    for k in range(1, len(rows)):
        ends = torch.arange(k, memory.times.shape[1])
        known = ends < memory.known[:, None]
        inverse = inverse_of(memory.times[:, :-k] - memory.times[:, k:], known)
        pairs = zip(rows, rows[1:], inverse.unbind(1), strict=False)
        rows = [(new - old) * align(factor.to(state), state) for new, old, factor in pairs]
        differences.append(rows[0])
    return _Fit(own, state, offset, torch.stack(differences, dim=1))


def _advanced(
    fit: _Fit, t0: Tensor, t1: Tensor, x: Tensor, gamma: Tensor, last: Tensor, values: Tensor
) -> Tensor:
    r"""Returns the states after steps whose polynomials have the given degree."""

    used = torch.where(torch.arange(gamma.shape[1]) <= last[:, None], gamma, 0)
    decay = fit.linear.decay(t0[None, :, None], t1[None, :, None])[0, :, 0, 0]
    moved = align((decay - 1).to(x), x) * (x - fit.state + fit.offset)
    return x + moved + combine(used[:, : values.shape[1]], values)


def _pushed(memory: _Memory, t: Tensor, x: Tensor, value: Tensor) -> _Memory:
    def push(new: Tensor, old: Tensor) -> Tensor:
        return torch.cat([new[:, None], old[:, :-1]], dim=1)

    known = (memory.known + 1).clamp(max=memory.times.shape[1] + 1)
    return _Memory(
        push(value, memory.values),
        push(x, memory.states),
        push(t, memory.times),
        memory.order,
        known,
        memory.parameter,
    )


def _parameter(linear: LinearFamily, memory: _Memory) -> Tensor:
    r"""The parameter for which the last two values lie on a path of the linear part alone."""

    pulls = (memory.states[:, :2] - memory.values[:, :2]).detach().flatten(2).double()
    new, old = pulls.unbind(1)
    ratio = (new * old).sum(1) / old.square().sum(1)
    return linear.fit(memory.times[:, 1], memory.times[:, 0], ratio.cpu())


def _between(
    fit: _Fit,
    t0: Tensor,
    t1: Tensor,
    x: Tensor,
    new: Tensor,
    memory: _Memory,
    theta: Tensor,
    rows: Tensor,
) -> Tensor:
    r"""Returns states inside the step, from the polynomials through both its ends."""

    some = rows.to(t0.device)
    start, stop, times = t0[some], t1[some], memory.times[some]
    s = torch.lerp(start, stop, theta.reshape(-1).double().cpu())
    nodes = torch.cat([stop[:, None], times[:, :-1]], dim=1)
    own = _Fit(fit.linear.member(memory.parameter[some]), *(value[rows] for value in fit[1:]))
    gamma = integrals(own.linear, start, s, nodes, SHORT)
    return _advanced(own, start, s, x[rows], gamma, memory.order[some], new[rows])
