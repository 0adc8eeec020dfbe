r"""The methods of torchdiffeq.

Three traps are closed here. Adaptive methods probe and step past the last time, where a model
may be undefined: they get the last time as a time to step to and a first step of ours. Their error
norm averages over the batch: ours takes the worst sample. Adams methods hold for steps of equal
size only, and are refused on other grids.

References:
    | Neural Ordinary Differential Equations (Chen et al., 2018)
    | https://arxiv.org/abs/1806.07366
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..calls import Counter, counting
from ..controller import Controller
from ..errors import SolverError
from ..problem import ODE, Problem
from ..record import Record
from ..shapes import row_finite, row_rms
from ..solution import Solution
from ..solver import Control, Solver

ADAMS_ORDER = 4  # torchdiffeq's default of 12 is unstable for any step a sampler takes


class _Stop(RuntimeError):
    r"""The end of a run before its time; carries status, time and the rows concerned, if not all."""

    def __init__(self, status: str, time: float, rows: Tensor | None = None) -> None:
        super().__init__(status)
        self.status, self.time, self.rows = status, time, rows


class _Field:
    r"""The drift in the time s = sign t, which increases, kept inside the span."""

    def __init__(
        self,
        problem: Problem,
        times: Tensor,
        record: Record,
        counter: Counter,
        callbacks: Iterable[str],
    ) -> None:
        self.problem, self.record, self.counter = problem, record, counter
        self.sign = 1.0 if times[-1] > times[0] else -1.0
        self.ends = sorted((self.sign * times[[0, -1]]).tolist())
        self.first, self.last = times[[0, -1]].tolist()
        self.state, self.time, self.before = record.x, self.first, 0
        self.told = self.first
        for name in callbacks:  # torchdiffeq warns of callbacks that a method does not know
            setattr(self, name, getattr(self, f"_{name}"))

    def __call__(self, s: Tensor, y: Tensor) -> Tensor:
        time = self.sign * min(max(float(s.detach()), self.ends[0]), self.ends[1])
        if self.record.spent(self.counter.total + self.problem.cost):
            raise _Stop("max_calls", time)
        drift = self.problem.drift(torch.tensor(time, dtype=torch.float64), y)
        good = row_finite(drift)
        if not bool(good.all()):
            raise _Stop("nonfinite", time, (~good).nonzero()[:, 0])
        return self.sign * drift

    def _callback_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        self.state, self.time = y, self.sign * float(s)
        last, self.before = self.counter.total - self.before, self.counter.total
        if self.record.spent(self.counter.total + last):
            raise _Stop("max_calls", self.time)
        if self.time != self.told:  # else nothing was accepted since
            self.tell(y)

    def tell(self, x: Tensor) -> None:
        r"""Tells the callback of the run about the state at the time reached."""

        self.told, time = self.time, torch.tensor(self.time, dtype=torch.float64)
        fraction = (self.time - self.first) / (self.last - self.first)
        self.record.calls[:] = self.counter.total
        if self.record.tell(fraction, time, x):
            raise _Stop("stopped", self.time)

    def _callback_accept_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        self.record.accepted += 1

    def _callback_reject_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        self.record.rejected += 1


@dataclass(frozen=True)
class Torchdiffeq(Solver):
    r"""Creates a method of torchdiffeq.

    Arguments:
        method: Its name there.
        order: Its order.
        calls_per_step: The evaluations of the drift in a step.
        adaptive: Whether it needs tolerances, and takes no grid.
        even: Whether it needs steps of equal size.
        solo: Whether samples must be integrated one by one, since it ignores the error norm, or iterates until
            all of them have converged.
    """

    method: str
    order: float
    calls_per_step: int
    adaptive: bool = False
    even: bool = False
    solo: bool = False
    solves = ODE
    adjoint = True

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"torchdiffeq/{self.method}"

    @property
    def fixed(self) -> bool:  # type: ignore[override]
        return not self.adaptive

    def integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        if times.ndim > 1:
            raise ValueError(
                f"{self} has one time for all samples; pass times of shape (n + 1,), or use a native "
                "solver, such as 'dopri5'."
            )
        if not self.solo:
            return self._integrate(problem, x, times, control)
        parts = []
        for row in torch.arange(len(x))[:, None]:
            part = problem.subset(row), x[row.to(x.device)]
            try:
                parts.append(self._integrate(*part, times, control))
            except SolverError as error:
                failure = replace(error.failure, samples=(int(row),))
                raise SolverError(failure, error.solution) from None
        return Solution.stack(parts)

    def _integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        from torchdiffeq import odeint, odeint_adjoint
        from torchdiffeq._impl.odeint import SOLVERS

        record = Record(problem, x, times, control)
        with counting() as counter:
            watched = problem.map(counter.watch)
            callbacks = SOLVERS[self.method].valid_callbacks()
            field = _Field(watched, times, record, counter, callbacks)
            ends = times if self.fixed or control.path else times[[0, -1]]
            try:
                options = self._options(watched, x, times, control.controller)
                if control.grad == "adjoint":
                    integrate = partial(odeint_adjoint, adjoint_params=control.parameters)
                else:
                    integrate = odeint
                times_ahead = (field.sign * ends).to(x.device)
                path = integrate(field, x, times_ahead, method=self.method, **options)
                field.time = field.last
                field.tell(path[-1])
            except _Stop as stop:
                status, time, rows = stop.status, stop.time, stop.rows
            except AssertionError:  # the step underflows, or there are too many
                status, time, rows = "min_step", field.time, None
            else:
                record.calls[:] = counter.total
                record.accepted += 0 if self.adaptive else len(times) - 1
                record.path = path if control.path else None
                return record.finish(path[-1])
            record.calls[:] = counter.total
            self._end(record, field.state, status, torch.tensor(time, dtype=torch.float64), rows)
            return record.solution()

    def _end(
        self, record: Record, x: Tensor, status: str, time: Tensor, rows: Tensor | None
    ) -> None:
        r"""Ends all samples, since a run is one for its batch; the rows at fault are named first."""

        if status == "stopped":
            return record.stop(torch.arange(len(x)), x, time)
        if rows is not None:
            record.fail(status, rows, x[rows.to(x.device)], time)
        others = record.alive.nonzero()[:, 0]
        return record.fail(status, others, x[others.to(x.device)], time)

    def _options(
        self, problem: Problem, x: Tensor, times: Tensor, controller: Controller | None
    ) -> dict[str, Any]:
        if controller is None:
            return {"options": {"max_order": ADAMS_ORDER + 1}} if self.even else {}
        tolerances = {"rtol": controller.rtol, "atol": controller.atol}
        if self.solo:
            return tolerances
        start = times[:1].expand(len(x))
        stop = times[-1:].expand(len(x))
        first, _ = controller.first(problem, self.order, start, stop, x)
        sign = (times[-1] - times[0]).sign()
        options = {
            "norm": lambda error: row_rms(error).max().to(error),
            "step_t": (sign * times[-1:]).to(x.device),
            "first_step": first.min().to(x.device),
            "max_num_steps": controller.max_steps,
        }
        return {**tolerances, "options": options}


METHODS = (
    Torchdiffeq("euler", order=1, calls_per_step=1),
    Torchdiffeq("midpoint", order=2, calls_per_step=2),
    Torchdiffeq("heun2", order=2, calls_per_step=2),
    Torchdiffeq("heun3", order=3, calls_per_step=3),
    Torchdiffeq("rk4", order=4, calls_per_step=4),
    Torchdiffeq("explicit_adams", order=4, calls_per_step=1, even=True),
    Torchdiffeq("implicit_adams", order=4, calls_per_step=4, even=True, solo=True),
    Torchdiffeq("fixed_adams", order=4, calls_per_step=4, even=True, solo=True),
    Torchdiffeq("adaptive_heun", order=2, calls_per_step=1, adaptive=True),
    Torchdiffeq("fehlberg2", order=2, calls_per_step=2, adaptive=True),
    Torchdiffeq("bosh3", order=3, calls_per_step=3, adaptive=True),
    Torchdiffeq("dopri5", order=5, calls_per_step=6, adaptive=True),
    Torchdiffeq("dopri8", order=8, calls_per_step=13, adaptive=True),
    Torchdiffeq("scipy_solver", order=5, calls_per_step=6, adaptive=True, solo=True),
)
REFUSED: dict[str, str] = {}
