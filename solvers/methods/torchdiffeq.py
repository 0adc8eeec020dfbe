r"""The methods of torchdiffeq.

Six traps are avoided here. Adaptive methods evaluate and step past the last time, where a model may be
undefined; they are given the last time as a time to step to, and our own first step. They may step over what
happens between their stages; they are given a maximum step. Their error norm averages over the batch and
compares errors with the state before a step; ours takes the worst sample and the state after the step. Adams
methods are valid for steps of equal size only, and are refused on other grids; implicit ones iterate until the
whole batch has converged, so here they correct once, which keeps samples independent.

References:
    | Neural Ordinary Differential Equations (Chen et al., 2018)
    | https://arxiv.org/abs/1806.07366
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..abilities import Abilities
from ..control import Control
from ..controller import Controller
from ..errors import SolverError
from ..loops.record import Record, says_stop
from ..network_calls import Counter, counting
from ..problem import ODE, Problem, Sizes
from ..shapes import row_finite, row_rms
from ..solver import Loop, Run, Solution, Solver

ONCE = 1e30  # tolerance of the implicit methods' iteration, which is one for the batch: they correct once
ADAMS_ORDER = 4  # torchdiffeq's default of 12 is unstable for any step a sampler takes
FIRST = 2  # number of rk4 steps, of four calls each, at the start of Adams methods


class _Stop(RuntimeError):
    r"""Ends a run early; carries the status, the time and the rows concerned, if not all."""

    def __init__(self, status: str, time: float, rows: Tensor | None = None) -> None:
        super().__init__(status)
        self.status, self.time, self.rows = status, time, rows


class _Once(torch.autograd.Function):
    r"""The result of an adjoint, which torchdiffeq cannot differentiate again."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # as under create_graph=True
            raise ValueError(
                "grad='adjoint' has first derivatives only, so create_graph=True has no effect on them; "
                "for second derivatives use grad='backprop' or 'checkpoint'."
            )
        return gradient


class _Field:
    r"""The drift in the increasing time s = sign t, restricted to the span."""

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
        self.probe, self.probed = record.x, self.first  # what was evaluated last, and when
        self.told = self.first
        for name in callbacks:  # torchdiffeq warns about callbacks that a method does not support
            setattr(self, name, getattr(self, f"_{name}"))

    def __call__(self, s: Tensor, y: Tensor) -> Tensor:
        time = self.sign * min(max(float(s.detach()), self.ends[0]), self.ends[1])
        if self.record.spent(self.counter.total + self.problem.cost):
            raise _Stop("max_calls", time)
        self.probe, self.probed = y.detach(), time
        drift = self.problem.drift(torch.tensor(time, dtype=torch.float64), y)
        good = row_finite(drift)
        if not bool(good.all()):
            raise _Stop("nonfinite", time, (~good).nonzero()[:, 0])
        return self.sign * drift

    @torch.no_grad()
    def worst(self, controller: Controller, ratio: Tensor) -> Tensor:
        r"""Returns the largest error of any sample, relative to the error that our controller allows.

        Arguments:
            controller: The controller.
            ratio: The error relative to the one that torchdiffeq allows, atol + rtol max(|x_0|, |x_1|). The last
                stage of its methods is at the end of the step, so its state is the :math:`x_1` of both.
        """

        before, after = self.state.abs(), self.probe.abs()
        error = ratio * (controller.atol + controller.rtol * torch.maximum(before, after))
        times = torch.tensor([self.time, self.probed, self.last], dtype=torch.float64)
        sizes = [size[:, None].expand(-1, len(after)) for size in self.problem.sizes(times)]
        ends, last = Sizes(*(size[:2] for size in sizes)), Sizes(*(size[2] for size in sizes))
        allowed = controller.allowed(self.problem, ends, last, self.state, self.probe)
        return row_rms(error / allowed).max().to(ratio)

    def _callback_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        self.state, self.time = y, self.sign * float(s)
        last, self.before = self.counter.total - self.before, self.counter.total
        if self.record.spent(self.counter.total + last):
            raise _Stop("max_calls", self.time)
        if self.time != self.told:  # otherwise nothing was accepted since then
            self.tell(y)

    def release(self) -> None:
        r"""Releases the run: its result refers to this field for the adjoint, which must not refer back."""

        self.state = self.state.new_empty(0)
        self.record = Record(self.problem, self.state, torch.zeros(1), Control())

    def tell(self, x: Tensor) -> None:
        r"""Reports the state at the time reached to the run's callback."""

        self.told, time = self.time, torch.tensor(self.time, dtype=torch.float64)
        fraction = (self.time - self.first) / (self.last - self.first)
        self.record.calls[:] = self.counter.total
        callback = self.record.control.callback
        if callback is None or not self.record.due(fraction):
            return
        if says_stop(callback(self.record.event(fraction, time, x))):
            raise _Stop("stopped", self.time)

    def _callback_accept_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        self.record.accepted += 1

    def _callback_reject_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        self.record.rejected += 1


@dataclass(frozen=True)
class Torchdiffeq(Solver):
    r"""Creates a solver from a method of torchdiffeq.

    Arguments:
        method: The name of the method in torchdiffeq.
        order: Its order.
        calls_per_step: The drift evaluations per step.
        adaptive: Whether it needs tolerances and cannot follow a grid.
        even: Whether it needs steps of equal size.
        solo: Whether samples must be integrated one by one, because it ignores the error norm.
    """

    method: str
    order: float
    calls_per_step: int
    adaptive: bool = False
    even: bool = False
    solo: bool = False

    @cached_property
    def can(self) -> Abilities:
        leaves = "which leaves torch for scipy; use grad='adjoint', or 'torchdiffeq/dopri5'"
        return Abilities(
            ODE,
            order=self.order,
            calls_per_step=self.calls_per_step,
            one_step=not self.even,
            adaptive=self.adaptive,
            fixed=not self.adaptive,
            even=self.even,
            stepwise=False,
            adjoint=True,
            severed=leaves if self.solo else "",
        )

    @property
    def name(self) -> str:
        return f"torchdiffeq/{self.method}"

    def calls(self, steps: int) -> int:
        first = min(steps, FIRST) if self.even else 0
        return 4 * first + (steps - first) * self.calls_per_step

    def integrate(
        self, problem: Problem, x: Tensor, times: Tensor, control: Control, loop: Loop
    ) -> Run:
        yield from ()  # its steps are taken without us, so there is nowhere to wait
        return self._integrate(problem, x, times, control)

    def _integrate(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        if times.ndim > 1:
            raise ValueError(
                f"{self} has one time for all samples; pass times of shape (n + 1,), or use a native "
                "solver, such as 'dopri5'."
            )
        if not self.solo:
            return self._at_once(problem, x, times, control)
        parts = []
        for row in torch.arange(len(x))[:, None]:
            part = problem.subset(row), x[row.to(x.device)]
            try:
                parts.append(self._at_once(*part, times, control))
            except SolverError as error:
                failure = replace(error.failure, samples=(int(row),))
                raise SolverError(failure, error.solution) from None
        return Solution.stack(parts)

    def _at_once(self, problem: Problem, x: Tensor, times: Tensor, control: Control) -> Solution:
        from torchdiffeq import odeint, odeint_adjoint
        from torchdiffeq._impl.odeint import SOLVERS

        record = Record(problem, x, times, control)
        with counting() as counter:
            watched = problem.map(counter.watch)
            callbacks = SOLVERS[self.method].valid_callbacks()
            field = _Field(watched, times, record, counter, callbacks)
            ends = times if self.fixed or control.path else times[[0, -1]]
            try:
                options = self._options(field, x, times, control.controller)
                if control.grad == "adjoint":
                    integrate = partial(odeint_adjoint, adjoint_params=control.parameters,
                                        adjoint_options=_backwards(options))  # fmt: skip
                else:
                    integrate = odeint
                times_ahead = (field.sign * ends).to(x.device)
                path = integrate(field, x, times_ahead, method=self.method, **options)
                path = _Once.apply(path) if control.grad == "adjoint" else path
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
                field.release()
                return record.finish(path[-1])
            record.calls[:] = counter.total
            self._end(record, field.state, status, torch.tensor(time, dtype=torch.float64), rows)
            return record.solution()

    def _end(
        self, record: Record, x: Tensor, status: str, time: Tensor, rows: Tensor | None
    ) -> None:
        r"""Ends all samples, since they share one run; the rows that failed come first."""

        if status == "stopped":
            return record.stop(torch.arange(len(x)), x, time)
        if rows is not None:
            record.fail(status, rows, x[rows.to(x.device)], time)
        others = record.alive.nonzero()[:, 0]
        return record.fail(status, others, x[others.to(x.device)], time)

    def _options(
        self, field: _Field, x: Tensor, times: Tensor, controller: Controller | None
    ) -> dict[str, object]:
        if controller is None:
            once = {"rtol": ONCE, "atol": ONCE, "options": {"max_order": ADAMS_ORDER + 1}}
            return once if self.even else {}
        problem = field.problem
        marks = problem.marks(times, controller.max_step)
        longest = marks.diff().abs().max() if problem.pace is None else torch.inf
        options: dict[str, object] = {"max_step": float(longest)}
        tolerances = {"rtol": controller.rtol, "atol": controller.atol}
        if self.solo:  # its tolerances are numbers, so the absolute one is that at the start
            if controller.first_step is not None:
                raise ValueError(f"first_step= has no effect on {self}; leave it out.")
            sizes = map(problem.sizes, times[[0, -1]])
            tolerances["atol"] *= float(problem.tolerance(*sizes).clamp(max=1))
            return {**tolerances, "options": options}
        start = times[:1].expand(len(x))
        stop = times[-1:].expand(len(x))
        if controller.first_step is None:
            first, _ = controller.first(problem, self.order, start, stop, x)
        else:
            first = (problem.ahead(start, stop, controller.first_step) - start).abs()
        steps = marks[-1:] if problem.pace is None else marks[1:]
        options |= {
            "norm": partial(field.worst, controller),
            "step_t": (field.sign * steps).to(x.device),
            "first_step": first.min().to(x.device),
            "max_num_steps": controller.max_steps,
        }
        return {**tolerances, "options": options}


def _backwards(options: Mapping[str, object]) -> dict[str, object]:
    r"""The options of the adjoint, whose error is also that of the worst sample or parameter."""

    inner = options.get("options")
    known = inner if isinstance(inner, dict) else {}
    kept = {name: value for name, value in known.items() if name.startswith("max_")}

    def worst(parts: tuple[Tensor, ...]) -> Tensor:
        _, y, adjoint, *weights = parts
        each = [row_rms(y), row_rms(adjoint), *(row_rms(w.reshape(1, -1)) for w in weights)]
        return torch.cat(each).max().to(y)

    return {**kept, "norm": worst}


METHODS = (
    Torchdiffeq("euler", order=1, calls_per_step=1),
    Torchdiffeq("midpoint", order=2, calls_per_step=2),
    Torchdiffeq("heun2", order=2, calls_per_step=2),
    Torchdiffeq("heun3", order=3, calls_per_step=3),
    Torchdiffeq("rk4", order=4, calls_per_step=4),
    Torchdiffeq("explicit_adams", order=4, calls_per_step=1, even=True),
    Torchdiffeq("implicit_adams", order=5, calls_per_step=2, even=True),
    Torchdiffeq("fixed_adams", order=5, calls_per_step=2, even=True),
    Torchdiffeq("adaptive_heun", order=2, calls_per_step=1, adaptive=True),
    Torchdiffeq("bosh3", order=3, calls_per_step=3, adaptive=True),
    Torchdiffeq("dopri5", order=5, calls_per_step=6, adaptive=True),
    Torchdiffeq("dopri8", order=8, calls_per_step=13, adaptive=True),
    Torchdiffeq("scipy_solver", order=5, calls_per_step=6, adaptive=True, solo=True),
)
REFUSED = {
    "torchdiffeq/fehlberg2": "its error estimate, h / 512 times the difference of two slopes, is far below its "
    "error, so that no tolerance holds; use 'torchdiffeq/adaptive_heun', of the same order"
}
