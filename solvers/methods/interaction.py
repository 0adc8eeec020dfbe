r"""General methods on semi-linear problems, whose linear part they need not resolve.

In the coordinates :math:`y = \Phi(t, r) \, x`, with any fixed time r, the linear part is gone,

.. math:: dy = \Phi(t, r) B(t) \, N(t, x) \, dt .

A Runge-Kutta method on it is Lawson's; with the variances of the data in the linear part, y hardly
moves where the data is nearly Gaussian.

References:
    | Generalized Runge-Kutta Processes for Stable Systems with Large Lipschitz Constants
    | (Lawson, 1967), section 3
    | https://doi.org/10.1137/0704033
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import SolverError
from ..loops.stepper import Stepper
from ..problem import ODE, Linear, Problem, SemiLinear, StateField
from ..shapes import Scalar, factors
from ..solution import Solution
from ..solver import Control, Event, Solver

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

LARGEST_BLOCK = 4096  # rows at once: files name a solver with its block


@dataclass(frozen=True)
class Interaction(Solver):
    r"""Creates a method that takes semi-linear problems in the coordinates without a linear part.

    Its variables are meant for clocks that rise as the noise level falls like an exponential.

    Arguments:
        name: The name of the method.
        method: A method for ODEs.
        form: The linear part of the equation.
        variable: The variable whose grid steps are equal to the method: "clock", "noise_level"
            or "signal_to_noise", its inverse.
        block: How many rows are integrated at once, always as many; 0 if that does not matter.
    """

    name: str
    method: Stepper
    form: str = "data"
    variable: str = "clock"
    block: int = 0
    solves = SemiLinear
    takes_eta = False

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or not 0 <= self.block <= LARGEST_BLOCK:
            raise ValueError(
                f"block must be a whole number from 0 to {LARGEST_BLOCK}, the rows that are integrated at once, "
                f"but is {self.block}."
            )

    @property
    def order(self) -> float:  # type: ignore[override]
        return self.method.order

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return self.method.calls_per_step

    @property
    def reversible(self) -> bool:  # type: ignore[override]
        return self.method.reversible

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.method.exact

    @property
    def severed(self) -> str:  # type: ignore[override]
        return self.method.severed

    def calls(self, steps: int) -> int:
        return self.method.calls(steps)

    def integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        assert isinstance(problem, SemiLinear)
        picture = _Picture(problem, self.variable, times.amin(0), times.amax(0))
        callback = control.callback
        if callback is not None:
            told = callback
            control = replace(control, callback=lambda event: told(picture.event(event)))
        y, v = picture.enter(x, times[0]), picture.to_variable(times)
        try:
            solution = self.method.integrate(picture.ode(), y, v, control)
        except SolverError as error:
            known = error.solution and picture.solution(error.solution, times)
            raise SolverError(error.failure, known) from None
        return picture.solution(solution, times)


@dataclass(frozen=True)
class _Picture:
    r"""The coordinates and the variable of one run."""

    problem: SemiLinear
    variable: str
    reference: Tensor  # the first time, r, with shape () or (B,)
    last: Tensor

    def ode(self) -> ODE:
        problem = self.problem
        return ODE(
            lambda v, y: self._fields(v.reshape(1, *v.shape[:1]), y)[0](y),
            tabulate=self._fields,
            rows=lambda index: replace(self, problem=problem.subset(index)).ode(),  # type: ignore[arg-type]
            describe=lambda v: problem.describe(float(self.to_clock(torch.tensor(v).double()))),
            cost=problem.cost,
        )

    def to_variable(self, clock: Tensor) -> Tensor:
        return VARIABLES[self.variable][0](self.problem.linear, clock)

    def to_clock(self, v: Tensor) -> Tensor:
        clock = VARIABLES[self.variable][1](self.problem.linear, v)
        return clock.clamp(self.reference, self.last)

    def enter(self, x: Tensor, clock: Tensor) -> Tensor:
        [factor] = factors(self.problem.linear.decay(clock, self.reference)[None], x)
        return x * factor

    def leave(self, y: Tensor, clock: Tensor) -> Tensor:
        [factor] = factors(self.problem.linear.decay(self.reference, clock)[None], y)
        return y * factor

    def event(self, event: Event) -> Event:
        clock = self.to_clock(event.time)
        return event._replace(time=clock, x=self.leave(event.x, clock))

    def solution(self, solution: Solution, times: Tensor) -> Solution:
        path = solution.path
        if path is not None:
            path = torch.stack([self.leave(y, t) for y, t in zip(path, times, strict=True)])
        ok = torch.tensor([status == "ok" for status in solution.status])
        reached = torch.where(ok, times[-1], self.to_clock(solution.reached))
        x = self.leave(solution.x, reached)
        return replace(solution, x=x, times=times, reached=reached, path=path)

    def _fields(self, v: Tensor, y: Tensor) -> Sequence[StateField]:
        linear, r, clock = self.problem.linear, self.reference, self.to_clock(v)
        pace = VARIABLES[self.variable][2](linear, clock)[..., None]
        rise = factors(linear.weight(clock, r, r) * pace, y)
        out = factors(linear.decay(r, clock), y)

        def bind(field: StateField, rise: Scalar, out: Scalar) -> StateField:
            return lambda y: rise * field(y * out)

        columns = zip(self.problem.at(clock, y), rise, out, strict=True)
        return [bind(*column) for column in columns]
