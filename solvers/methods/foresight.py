r"""Multistep methods that look ahead: past values lead inside a step, and the value there takes all of it.

The polynomial through the last values of :math:`N` predicts the state in the middle of a step,

.. math:: x_{1/2} = \Phi(s, m) \, x(s) + \sum_j w_j N_j , \qquad
    x(t) = \Phi(s, t) \, x(s) + \int_s^t \Phi(u, t) B(u) \, du \; N(m, x_{1/2}) .

With one value this is PFDiff, in any linear part; there, the state in the middle is called a springboard. The
middle is where half of the weight :math:`\Phi B` has passed, so that one value is enough for order 2. In the
coordinates of data with variance l, its noise level is

.. math:: \frac{s' r'' + s'' r'}{r' + r''} , \qquad r = \sqrt{l + s^2} ,

halfway in the angle :math:`\arctan(s / \sqrt l)`, as on the grid "tan".

References:
    | PFDiff: Training-Free Acceleration of Diffusion Models Combining Past and Future Scores (Wang et al., 2025),
    | algorithm 1
    | https://arxiv.org/abs/2408.08822
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..kept import kept, like, told
from ..noise.brownian import Brownian
from ..problem import Linear, SemiLinear, StateField
from ..shapes import Scalar, add_product, factors
from ..solver import Solver, Step
from .weights import weights


class _Plan(NamedTuple):
    to_middle: Scalar
    predictor: Sequence[Scalar]  # the weights of past values, the newest first
    decay: Scalar
    weight: Scalar
    field: StateField  # at the middle
    guess: StateField  # of the value at the start of the first step


@dataclass(frozen=True)
class Foresight(Solver):
    r"""Creates the method that predicts the middle of each step from the given number of past values.

    Before the first step, the value is that of Gaussian data (the problem's guess), or 0 if there is none, as in
    the coordinates of the moments, so it takes no call.

    Arguments:
        name: The name of the method.
        values: The number of past values, in [1, 4].
        form: The linear part: "data", "noise", "isotropic" or "moments".

    Raises:
        ValueError: If the number of values is out of range.

    Examples:
        >>> linear = solvers.SemiLinear(lambda t, x: torch.ones_like(x), solvers.ConstantRate(-1.0))
        >>> solver = solvers.Foresight("mine", values=2)
        >>> s = solvers.solve(linear, torch.zeros(1, 1), torch.tensor([0.0, 0.5, 1.0]), solver)
        >>> round(float(s.x), 4)  # 1 - exp(-1)
        0.6321
    """

    name: str
    values: int = 1
    form: str = "moments"

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            SemiLinear,
            order=2,
            calls_per_step=1,
            one_step=False,
            takes_eta=False,  # its prediction ignores noise
            form=self.form,
        )

    def plan(self, problem: SemiLinear, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Plan]:
        middle = problem.linear.middle(t0, t1)
        make = partial(self._rows, problem.linear, t0, middle, t1, x)
        rows = kept(make, self, problem.linear.key, told(t0, t1), like(x))
        guess = torch.zeros_like if problem.guess is None else problem.guess(t0[:1], x)[0]
        fields = problem.at(middle, x)
        return [_Plan._make((*row, field, guess)) for row, field in zip(rows, fields, strict=True)]

    def _rows(
        self, linear: Linear, t0: Tensor, middle: Tensor, t1: Tensor, x: Tensor
    ) -> list[tuple[Any, ...]]:
        r"""Returns the plans without their fields."""

        decay = linear.decay(t0, t1)
        columns = (
            factors(linear.decay(t0, middle), x),
            self._predictor(linear, t0, middle, x),
            factors(decay, x),
            factors(weights(linear, t0, t1, decay, middle[..., None])[..., 0, :], x),
        )
        return list(zip(*columns, strict=True))

    def _predictor(
        self, linear: Linear, t0: Tensor, middle: Tensor, x: Tensor
    ) -> list[Sequence[Scalar]]:
        r"""Returns the weights of the values known at each step on the way to its middle."""

        # of the guess, which serves the first step alone, and of values
        places = torch.cat([t0[:1], middle])
        known = torch.arange(len(t0)).clamp(1, self.values)
        rows: list[Sequence[Scalar]] = []
        for k in known.unique().tolist():
            number = (known == k).nonzero()[:, 0]
            nodes = places[number[:, None] - torch.arange(k)].movedim(1, -1)
            s, t = t0[number], middle[number]
            w = weights(linear, s, t, linear.decay(s, t), nodes)
            rows += zip(*(factors(w[..., j, :], x) for j in range(k)), strict=True)
        return rows

    def step(
        self, plan: _Plan, x: Tensor, memory: tuple[Tensor, ...] | None, noise: Brownian | None
    ) -> Step:
        ahead = x * plan.to_middle
        for weight, value in zip(plan.predictor, memory or (plan.guess(x),), strict=True):
            add_product(ahead, value, weight)
        values = (plan.field(ahead), *(memory or ()))[: self.values]
        return Step(add_product(x * plan.decay, values[0], plan.weight), values)
