r"""Noise around the steps of a deterministic method.

Any method for the equation without noise carries the states of a diffusion from one time to another. Noise may
be added to reach a noisier time, before the step (churn) or after it (ancestral), or it may be balanced by a
step of Langevin dynamics at the same time.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | algorithm 2, for churn
    | https://arxiv.org/abs/2206.00364
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), algorithms 1 and 4
    | https://arxiv.org/abs/2011.13456
    | Generative Modeling by Estimating Gradients (Song and Ermon, 2019), algorithm 1
    | https://arxiv.org/abs/1907.05600
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..noise.brownian import Brownian
from ..problem import SemiLinear, StateField
from ..shapes import Scalar, add_product, align, scalars
from ..solver import Solver, Step
from .one_step import check_one_step

RARE = 4.0  # standard noise is longer than sqrt(d) + 4 with a probability below exp(-8)


class _Plan(NamedTuple):
    inner: object
    noise_std: Scalar
    number: int
    t0: Tensor
    t1: Tensor
    rise: Scalar = 0.0  # of noise that leads back


@dataclass(frozen=True)
class Renoised(Solver):
    r"""Abstract method that adds noise to the steps of a deterministic one.

    Arguments:
        name: The name of the method.
        inner: The method of the steps, which must be a one-step method.
    """

    name: str
    inner: Solver

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_step(self.name, self.inner)

    @cached_property
    def can(self) -> Abilities:
        return self._abilities(self.inner.calls_per_step)

    def _abilities(self, cost: int, own_noise: bool = False) -> Abilities:
        return Abilities(
            SemiLinear,
            order=1,
            calls_per_step=cost,
            stochastic=True,
            own_noise=own_noise,
            form=self.inner.form,
        )

    def _plans(
        self, problem: SemiLinear, ends: tuple[Tensor, Tensor], inner: tuple[Tensor, Tensor],
        std: Tensor, x: Tensor,
    ) -> list[_Plan]:  # fmt: skip
        quiet = replace(problem, linear=problem.linear.quiet)
        steps = self.inner.plan(quiet, *inner, x)
        columns = zip(steps, scalars(std, x), range(len(steps)), *ends, strict=True)
        return [_Plan(*column) for column in columns]


@dataclass(frozen=True)
class Ancestral(Renoised):
    r"""Creates the ancestral form of a method, which steps beyond the end and returns by adding noise.

    It steps to the less noisy time with :math:`\sigma_d^2 = \sigma(t)^2 - \sigma_u^2`, where :math:`\sigma_u` is
    the noise that the equation adds between both ends, and then adds this noise.

    Examples:
        >>> solver = solvers.Ancestral("mine", solvers.get("dpm_2"))
        >>> solver.calls_per_step, solver.stochastic
        (2, True)
    """

    @cached_property
    def can(self) -> Abilities:
        return replace(self._abilities(self.inner.calls_per_step), gaussian=True)

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        linear, beyond = problem.linear, problem.linear.beyond(t0, t1)
        std = (linear.level(t1) ** 2 - linear.level(beyond) ** 2).sqrt()
        return self._plans(problem, (t0, t1), (t0, beyond), std, x)

    def step(self, plan: _Plan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        x = self.inner.step(plan.inner, x, None, None).x
        return Step(_noised(x, plan, noise))


@dataclass(frozen=True)
class Recurrent(Ancestral):
    r"""Creates the ancestral form of a method with each step taken several times.

    After each repeat except the last, noise leads back to the start of the step,
    :math:`X \leftarrow X + \sqrt{\sigma(t_0)^2 - \sigma(t_1)^2} \, z`, so that the part set by guidance or by
    known data and the rest come to agree. The error of the steps is repeated, too.

    References:
        | RePaint: Inpainting using Denoising Diffusion Probabilistic Models (Lugmayr et al., 2022), algorithm 1
        | https://arxiv.org/abs/2201.09865
        | Universal Guidance for Diffusion Models (Bansal et al., 2023), section 3.3, for "self-recurrence"
        | https://arxiv.org/abs/2302.07121

    Arguments:
        repeats: How many times it takes each step.
    """

    repeats: int = 5

    @cached_property
    def can(self) -> Abilities:
        known = self._abilities(self.repeats * self.inner.calls_per_step, own_noise=True)
        return replace(known, one_normal=False)

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        linear = problem.linear
        rise = (linear.level(t0) ** 2 - linear.level(t1) ** 2).clamp(min=0).sqrt()
        steps = super().plan(problem, t0, t1, x)
        return [step._replace(rise=r) for step, r in zip(steps, scalars(rise, x), strict=True)]

    def step(self, plan: _Plan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        for k in range(self.repeats):
            x = self.inner.step(plan.inner, x, None, None).x
            if noise is not None:
                x = add_product(x.clone(), noise.fresh(plan.number, 2 * k), plan.noise_std)
            if noise is not None and k + 1 < self.repeats:
                x = add_product(x, noise.fresh(plan.number, 2 * k + 1), plan.rise)
        return Step(x)


@dataclass(frozen=True)
class Churn(Renoised):
    r"""Creates the churned form of a method: noise leads back to a noisier time before each step.

    The noise level rises by the factor :math:`1 + \min(S / n, \sqrt 2 - 1)`, where n counts the
    steps and the last denoising, but never beyond the domain.

    Arguments:
        amount: The total :math:`S` (S_churn).
        low: The noise level below which no noise is added (S_tmin).
        high: The noise level above which no noise is added (S_tmax).
        noise: The standard deviation of the noise, relative to the one that the noise level requires (S_noise).

    Examples:
        >>> solver = solvers.Churn("mine", solvers.get("edm_heun"), amount=10.0)
        >>> solver.calls_per_step, solver.own_noise
        (2, True)
    """

    amount: float = 40.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003

    @cached_property
    def can(self) -> Abilities:
        known = self._abilities(self.inner.calls_per_step, own_noise=True)
        return replace(known, takes_eta=False)

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        linear, gamma = problem.linear, min(self.amount / (len(t0) + 1), math.sqrt(2) - 1)
        level = linear.level(t0)
        churned = (level >= self.low) & (level <= self.high)
        start = linear.time_of(level * (1 + gamma * churned))
        start = torch.where(churned, start, t0)
        std = self.noise * (linear.level(start) ** 2 - level**2).clamp(min=0).sqrt()
        return self._plans(problem, (t0, t1), (start, t1), std, x)

    def step(self, plan: _Plan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        return self.inner.step(plan.inner, _noised(x, plan, noise), None, None)


class _DrawnPlan(NamedTuple):
    field: StateField
    noise_std: Scalar
    number: int
    t0: Tensor
    t1: Tensor


@dataclass(frozen=True)
class Redrawn(Solver):
    r"""Creates the method of consistency models: each step ends at N, with new noise of the next noise level.

    .. math:: x' = N(t, x) + \sigma(t') \, z

    No noise of the state is kept. If N is the data at the end of the flow, the law at each time is exact after
    any number of steps. If N is a conditional mean, samples are too narrow, also after many steps.

    References:
        | Consistency Models (Song et al., 2023), algorithm 1
        | https://arxiv.org/abs/2303.01469

    Examples:
        >>> solver = solvers.Redrawn("mine")
        >>> solver.calls_per_step, solver.stochastic, solver.takes_eta
        (1, True, False)
    """

    name: str

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            SemiLinear,
            order=1,
            calls_per_step=1,
            stochastic=True,
            gaussian=True,
            takes_eta=False,
            own_noise=True,
            open=True,
        )

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_DrawnPlan]:
        stds = scalars(problem.linear.level(t1), x)
        columns = zip(problem.at(t0, x), stds, range(len(t0)), t0, t1, strict=True)
        return [_DrawnPlan(*column) for column in columns]

    def step(self, plan: _DrawnPlan, x: Tensor, memory: None, noise: Brownian | None) -> Step:
        return Step(_noised(plan.field(x), plan, noise))


def _noised(x: Tensor, plan: _Plan | _DrawnPlan, noise: Brownian | None) -> Tensor:
    if noise is None or (isinstance(plan.noise_std, float) and plan.noise_std == 0):
        return x
    w = noise.increment(plan.number, plan.t0, plan.t1)
    normal = w / align((plan.t1 - plan.t0).abs().sqrt().to(x), x)
    return add_product(x.clone(), normal, plan.noise_std)


class _LangevinPlan(NamedTuple):
    inner: object
    field: StateField
    level: Scalar
    number: int


@dataclass(frozen=True)
class Langevin(Solver):
    r"""Creates a method that adds steps of Langevin dynamics at the end of each step of another method.

    They leave the law at a time unchanged, except for the error of their finite step size:

    .. math:: x' = x + \tau \, (N - x) + \sqrt{2 \tau} \, \sigma \, z , \qquad
        \tau = 2 r^2 \min \Big( 1, \, \frac{(\sqrt d + 4)^2 \sigma^2}{\|N - x\|^2} \Big) ,

    or with the constant :math:`\tau` of annealed Langevin dynamics. If N - x comes from a score, its mean square
    is at most :math:`d \sigma^2`, which therefore replaces the mean over a batch; the bound by the norm is for
    vectors longer than noise ever is, as guidance makes them. A step size that followed the norm of each sample
    would change the law, since steps would be long where the score is small: in one dimension, the variance
    would double. With data of variance l, the variance settles at :math:`1 / (1 - \tau (1 - \rho) / 2)` times
    its value, :math:`\rho = l / (l + \sigma^2)`, which is at most 2.7 % too large for r = 0.16.

    Arguments:
        name: The name of the method.
        inner: The method of the steps between times, or `None` for annealed Langevin dynamics.
        corrections: The number of Langevin steps after each step of `inner`.
        ratio: The ratio r of signal to noise.
        tau: The constant :math:`\tau`, if it does not follow from the ratio.

    Examples:
        >>> solver = solvers.Langevin("mine", solvers.get("ddim"), corrections=2)
        >>> solver.calls_per_step
        3
    """

    name: str
    inner: Solver | None
    corrections: int = 1
    ratio: float = 0.16
    tau: float | None = None

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            SemiLinear,
            order=1,
            calls_per_step=self.corrections + (self.inner.calls_per_step if self.inner else 0),
            stochastic=True,
            one_normal=False,
            takes_eta=self.inner is not None,
            own_noise=True,
        )

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_LangevinPlan]:
        inner = self.inner.plan(problem, t0, t1, x) if self.inner else [None] * len(t0)
        levels = scalars(problem.linear.level(t1), x)
        columns = zip(inner, problem.at(t1, x), levels, range(len(t0)), strict=True)
        return [_LangevinPlan(*column) for column in columns]

    def recall(self, memory: Any) -> object:
        return self.inner.recall(memory) if self.inner else memory

    def step(self, plan: _LangevinPlan, x: Tensor, memory: object, noise: Brownian | None) -> Step:
        if self.inner is not None:
            x, memory = self.inner.step(plan.inner, x, memory, noise)[:2]
        for k in range(self.corrections):
            pull = plan.field(x) - x
            z = torch.zeros_like(x) if noise is None else noise.fresh(plan.number, k)
            tau: Scalar
            if self.tau is None:
                longest = (math.sqrt(x[0].numel()) + RARE) * plan.level
                norm = align(pull.flatten(1).norm(dim=1), x)
                tau = 2 * self.ratio**2 * (longest / norm).square().clamp(max=1)
            else:
                tau = self.tau
            x = x + tau * pull + (2 * tau) ** 0.5 * plan.level * z
        return Step(x, memory)
