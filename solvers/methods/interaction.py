r"""General methods for semi-linear problems, whose linear part they need not resolve.

In the coordinates :math:`y = \Phi(t, r) \, x`, with any fixed time r, the linear part vanishes:

.. math:: dy = \Phi(t, r) B(t) \, N(t, x) \, dt .

A Runge-Kutta method in these coordinates is Lawson's method; with the variances of the data in the linear part,
y hardly moves where the data is nearly Gaussian.

References:
    | Generalized Runge-Kutta Processes for Stable Systems with Large Lipschitz Constants
    | (Lawson, 1967), section 3
    | https://doi.org/10.1137/0704033
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..abilities import Abilities
from ..chart import Chart
from ..control import Control
from ..problem import ODE, Linear, Problem, SemiLinear, StateField
from ..shapes import Scalar, factors
from ..solver import Loop, Run, Solver

# The variables: a function of the linear part and the clock that rises with it, its inverse, and the
# change of the clock with it.
Map = Callable[[Linear, Tensor], Tensor]
VARIABLES: dict[str, tuple[Map, Map, Map]] = {
    "clock": (lambda linear, t: t, lambda linear, v: v, lambda linear, t: torch.ones_like(t)),
    "noise_level": (
        lambda linear, t: -linear.level(t),
        lambda linear, v: linear.time_of(-v),
        lambda linear, t: 1 / linear.level(t),
    ),
    "signal_to_noise": (
        lambda linear, t: 1 / linear.level(t),
        lambda linear, v: linear.time_of(1 / v),
        lambda linear, t: linear.level(t),
    ),
}

LARGEST_BLOCK = 4096  # rows at once: files store a solver's name with its block


@dataclass(frozen=True)
class Interaction(Solver):
    r"""Creates a method that solves semi-linear problems in coordinates without a linear part.

    Its variables are meant for clocks in which the noise level falls exponentially.

    Arguments:
        name: The name of the method.
        method: A method for ODEs.
        form: The linear part of the equation.
        variable: The variable in which the method takes its steps: "clock", "noise_level" or "signal_to_noise",
            its inverse.
        block: The fixed number of rows that are integrated at once; 0 if the number does not matter.
    """

    name: str
    method: Solver
    form: str = "data"
    variable: str = "clock"
    block: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or not 0 <= self.block <= LARGEST_BLOCK:
            raise ValueError(
                f"block must be a whole number from 0 to {LARGEST_BLOCK}, the rows that are integrated at once, "
                f"but is {self.block}."
            )

    @cached_property
    def can(self) -> Abilities:
        return replace(
            self.method.can,
            solves=SemiLinear,
            unstable="",  # without the linear part, its clock is not stiff
            takes_eta=False,
            adaptive=False,
            form=self.form,
            block=self.block,
        )

    def calls(self, steps: int) -> int:
        return self.method.calls(steps)

    def integrate(
        self, problem: Problem, x: Tensor, times: Tensor, control: Control, loop: Loop
    ) -> Run:
        assert isinstance(problem, SemiLinear)
        chart = Lawson(problem, self.variable, times.amin(0), times.amax(0))
        y, v = chart.enter(x, times[0]), chart.to_clock(times)
        inside = self.method.integrate(chart.problem(), y, v, control, loop)
        return (yield from chart.run(inside, times))


@dataclass(frozen=True)
class Lawson(Chart):
    r"""Creates the coordinates :math:`y = \Phi(t, r) \, x` and the variable v(t) of one run.

    .. math:: dy = \Phi(t, r) B(t) \, N(t, x) \, \frac{dt}{dv} \, dv

    Arguments:
        semi_linear: The problem.
        variable: The name of the variable.
        reference: The smallest time of the run, r, with shape () or (B,).
        last: The largest time of the run.
    """

    semi_linear: SemiLinear
    variable: str
    reference: Tensor
    last: Tensor

    def problem(self) -> ODE:
        known = self.semi_linear
        return ODE(
            lambda v, y: self._fields(v.reshape(1, *v.shape[:1]), y)[0](y),
            tabulate=self._fields,
            rows=self._rows,
            describe=lambda v: known.describe(float(self.to_time(torch.tensor(v).double()))),
            cost=known.cost,
        )

    def to_clock(self, time: Tensor) -> Tensor:
        return VARIABLES[self.variable][0](self.semi_linear.linear, time)

    def to_time(self, clock: Tensor) -> Tensor:
        time = VARIABLES[self.variable][1](self.semi_linear.linear, clock)
        return time.clamp(self.reference, self.last)

    def enter(self, x: Tensor, time: Tensor) -> Tensor:
        [factor] = factors(self.semi_linear.linear.decay(time, self.reference)[None], x)
        return x * factor

    def leave(self, y: Tensor, time: Tensor) -> Tensor:
        [factor] = factors(self.semi_linear.linear.decay(self.reference, time)[None], y)
        return y * factor

    def _rows(self, index: Tensor) -> ODE:
        some = self.semi_linear.subset(index)
        assert isinstance(some, SemiLinear)
        return replace(self, semi_linear=some).problem()

    def _fields(self, clock: Tensor, y: Tensor) -> Sequence[StateField]:
        linear, r, time = self.semi_linear.linear, self.reference, self.to_time(clock)
        pace = VARIABLES[self.variable][2](linear, time)[..., None]
        rise = factors(linear.weight(time, r, r) * pace, y)
        out = factors(linear.decay(r, time), y)

        def bind(field: StateField, rise: Scalar, out: Scalar) -> StateField:
            return lambda y: rise * field(y * out)

        columns = zip(self.semi_linear.at(time, y), rise, out, strict=True)
        return [bind(*column) for column in columns]
