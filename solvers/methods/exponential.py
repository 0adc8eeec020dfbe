r"""Exponential multistep methods, which use the values of :math:`N` at their last steps.

With the polynomial through the last k values integrated exactly, this is the exponential Adams
method of order k; order 1 is DDIM. The form of the equation is a choice: its linear part may hold the noise that
is still in the state ("data"), nothing ("noise"), or known moments of the data. A corrector repeats the last
step once the value at its end is known, at no extra call.

References:
    | Denoising Diffusion Implicit Models (Song et al., 2021), equation (12)
    | https://arxiv.org/abs/2010.02502
    | Fast Sampling of Diffusion Models with Exponential Integrator (Zhang and Chen, 2023), section 3
    | https://arxiv.org/abs/2204.13902
    | UniPC: A Unified Predictor-Corrector Framework (Zhao et al., 2023), algorithms 1 and 2
    | https://arxiv.org/abs/2302.04867
    | Bespoke Non-Stationary Solvers (Shaul et al., 2024), section 3, for weights of all values at each step
    | https://arxiv.org/abs/2403.01329
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..doors.values import is_number, shown
from ..kept import kept, like, told
from ..noise.brownian import Brownian
from ..problem import Linear, SemiLinear, StateField
from ..shapes import Factor, Scalar, add_product, factors, product
from ..solver import Solver, Step
from .weights import Rule, exact, weights

LARGEST = 1e15  # addition, whose products with weights fit into any dtype of a state


class _Plan(NamedTuple):
    decay: Factor
    weights: list[Factor]
    correction: list[Factor]  # the weights by which the previous step is repeated
    noise_std: Factor  # per square root of time
    number: int
    t0: Tensor
    t1: Tensor
    field: StateField


class _Memory(NamedTuple):
    values: tuple[Tensor, ...]
    base: Tensor | None  # the last step without its values


@dataclass(frozen=True)
class ExponentialMultistep(Solver):
    r"""Creates the exponential multistep method with the given rules.

    Its first steps use fewer values. The global error has the stated order once these steps are short enough; on
    an even grid, the first of them caps it at 2, or at 3 with a corrector. One value gives DDIM, or DDPM with
    noise; two with the rule `midpoint` give DPM-Solver++ (2M); with a corrector, the methods are those of UniPC.

    Arguments:
        name: The name of the method.
        values: The number of past values, in [1, 4].
        form: The linear part: "data", "noise", "isotropic", "moments" or "measured".
        rules: The rules that weight one value, two values, and so on; the last rule serves for more.
        corrector: The same for the corrector, which has one more value. By default, there is none.
        variable: The variable in which N is approximated by a polynomial.
        stochastic: Whether it is meant for problems with noise.
        known_order: The order, if it differs from the number of values (plus 1 with a corrector).
        profile: The name of the function that gives the amount of noise by noise level.
        lower_order_final: Whether the last steps use fewer values.
        analytic_first: Whether the first value is that of Gaussian data, which saves a call.
        additions: Learned numbers for each step of a grid: first a, then :math:`d_j` for all values so far, the
            newest first. The step is

            .. math:: x' = (1 + a) \Phi x + \sum_j (w_j + W d_j) N_j ,

            where :math:`w_j` are the weights of the rules, and W is that of a single value. A row may be twice as
            long: then the numbers of its second half, times the contrast of the linear part, are added to those
            of its first half, so that they differ between coordinates.

    Raises:
        ValueError: If the number of values is out of range, or additions do not fit the method.

    Examples:
        >>> linear = solvers.SemiLinear(lambda t, x: torch.ones_like(x), solvers.ConstantRate(-1.0))
        >>> solver = solvers.ExponentialMultistep("mine", values=2)
        >>> s = solvers.solve(linear, torch.zeros(1, 1), torch.tensor([0.0, 0.5, 1.0]), solver)
        >>> round(float(s.x), 4)  # 1 - exp(-1)
        0.6321
    """

    name: str
    values: int = 2
    form: str = "data"
    rules: tuple[Rule, ...] = (exact,)
    corrector: tuple[Rule, ...] = ()
    variable: str = "clock"
    stochastic: bool = False
    known_order: int | None = None
    profile: str = "constant"
    lower_order_final: bool = False
    analytic_first: bool = False
    additions: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.analytic_first and self.form == "measured":
            raise ValueError(
                "analytic_first has no effect on solvers with measured statistics, whose first value no simple "
                "model tells; leave it out."
            )
        if self.additions and self.corrector:
            raise ValueError(
                f"additions are for methods without corrector, but {self.name} has one; use its predictor alone."
            )
        rows = tuple(map(tuple, self.additions))  # which have a hash
        object.__setattr__(self, "additions", rows)
        for i, row in enumerate(self.additions):
            if len(row) not in (i + 2, 2 * i + 4):
                raise ValueError(
                    f"additions of step {i} must be {i + 2} numbers, one for the state and one for each value so "
                    f"far, or twice as many, but are {len(row)}."
                )
            for number in row:
                if not is_number(number) or not abs(number) <= LARGEST:
                    raise ValueError(
                        f"additions of step {i} must be numbers of at most {LARGEST:g}, but one is "
                        f"{shown(number)}."
                    )

    @cached_property
    def can(self) -> Abilities:
        order = self.known_order or self.values + bool(self.corrector)
        return Abilities(
            SemiLinear,
            order=1 if self.stochastic else order,
            calls_per_step=1,
            cap=3 if self.corrector else 2,
            one_step=self.values == 1 and not self.corrector,
            stochastic=self.stochastic,
            takes_eta=self.form != "measured",  # whose rates are those of the flow
            gaussian=not self.corrector and self.form != "measured",
            profile=self.profile,
            form=self.form,
        )

    def calls(self, steps: int) -> int:
        return steps * self.can.calls_per_step - self.analytic_first

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        fields = list(problem.at(t0, x))
        if self.analytic_first and problem.guess is not None:
            fields[0] = problem.guess(t0[:1], x)[0]
        make = partial(self._rows, problem.linear, t0, t1, x)
        rows = kept(make, self, problem.linear.key, told(t0, t1), like(x))
        return [_Plan._make((*row, field)) for row, field in zip(rows, fields, strict=True)]

    def _rows(self, linear: Linear, t0: Tensor, t1: Tensor, x: Tensor) -> list[tuple[Any, ...]]:
        r"""Returns the plans without their fields."""

        std = linear.noise_std(t0, t1) / (t1 - t0).abs().sqrt()[..., None]
        decay = linear.decay(t0, t1)
        predictor = self._weights(linear, t0, t1, decay, x, ahead=0)
        decays = linear.factors(decay, x)
        if self.additions:
            predictor, decays = self._added(linear, t0, t1, decay, x, predictor)
        corrector: list[list[Factor]] = [[] for _ in predictor]
        if self.corrector:
            corrector[1:] = self._weights(linear, t0, t1, decay, x, ahead=1)[:-1]
        columns = (
            decays,
            predictor,
            corrector,
            linear.factors(std, x),
            range(len(t0)),
            t0,
            t1,
        )
        return list(zip(*columns, strict=True))

    def _weights(
        self, linear: Linear, t0: Tensor, t1: Tensor, decay: Tensor, x: Tensor, ahead: int
    ) -> list[list[Factor]]:
        r"""Returns the weights of the values in each step, the newest first.

        With `ahead` = 1, the value at the end of the step is the newest.
        """

        steps, all_times = len(t0), torch.cat([t0, t1[-1:]])
        known = self.known(steps)
        rows: list[list[Factor]] = [[] for _ in range(steps)]
        rules = self.corrector if ahead else self.rules
        for k in known.unique().tolist():
            number = (known == k).nonzero()[:, 0]
            nodes = all_times[number[:, None] + ahead - torch.arange(k + ahead)].movedim(1, -1)
            rule = rules[min(k + ahead, len(rules)) - 1]
            steps_of_k = (t0[number], t1[number], decay[number])
            w = weights(linear, *steps_of_k, nodes, rule, self.variable)
            by_value = [linear.factors(w[..., j, :], x) for j in range(k + ahead)]
            for i, row in zip(number.tolist(), zip(*by_value, strict=True), strict=True):
                rows[i] = list(row)
        return rows

    def known(self, steps: int) -> Tensor:
        r"""Returns how many values are known at each step."""

        known = torch.arange(1, steps + 1).clamp(max=self.values)
        return known.minimum(torch.arange(steps, 0, -1)) if self.lower_order_final else known

    def _added(
        self,
        linear: Linear,
        t0: Tensor,
        t1: Tensor,
        decay: Tensor,
        x: Tensor,
        rows: list[list[Any]],
    ) -> tuple[list[list[Factor]], list[Factor]]:
        r"""Returns the weights of all values, and the factors of the state, with the additions."""

        if len(rows) != len(self.additions):
            raise ValueError(
                f"the additions of {self} are for {len(self.additions)} steps, so they cannot be used for "
                f"{len(rows)} steps."
            )
        whole = factors(weights(linear, t0, t1, decay, t0[..., None])[..., 0, :], x)
        contrast = factors(linear.contrast[None], x)[0]
        added: list[list[Factor]] = []
        decays: list[Factor] = []
        for w, phi, row, numbers in zip(
            whole, factors(decay, x), rows, self.additions, strict=True
        ):
            a, *d = _by_coordinate(numbers, len(decays) + 2, contrast)
            known = [*row, *[0.0] * (len(d) - len(row))]
            added.append([w_j + w * d_j for w_j, d_j in zip(known, d, strict=True)])
            decays.append(phi + phi * a)
        return added, decays

    @property
    def _kept(self) -> int:
        r"""The number of values that a step uses."""

        return len(self.additions) or self.values + bool(self.corrector)

    def recall(self, memory: tuple[Any, ...] | None) -> _Memory | None:
        return None if memory is None else _Memory(*memory)

    def step(self, plan: _Plan, x: Tensor, memory: _Memory | None, noise: Brownian | None) -> Step:
        past = memory.values if memory else ()
        values = (plan.field(x), *past)[: self._kept]
        if memory is not None and memory.base is not None:
            x = _combine(memory.base.clone(), plan.correction, values)
        x = product(plan.decay, x)
        if noise is not None and not _is_zero(plan.noise_std):
            add_product(x, noise.increment(plan.number, plan.t0, plan.t1), plan.noise_std)
        base = x.clone() if self.corrector else None
        return Step(_combine(x, plan.weights, values), _Memory(values, base))


def _by_coordinate(numbers: Sequence[float], count: int, contrast: Scalar) -> list[Scalar]:
    r"""Returns additions in which the second half of the numbers, if there is one, has been added."""

    if len(numbers) == count:
        return [*numbers]
    return [a + contrast * b for a, b in zip(numbers[:count], numbers[count:], strict=True)]


def _combine(x: Tensor, coefficients: Sequence[Factor], values: Sequence[Tensor]) -> Tensor:
    for weight, value in zip(coefficients, values, strict=False):
        add_product(x, value, weight)
    return x


def _is_zero(factor: Factor) -> bool:
    return isinstance(factor, float) and factor == 0
