r"""Changes of clock and coordinates: what goes in comes out, and laws are kept."""

import math

import pytest
import torch
from torch import Tensor

from solvers import ODE, Brownian, Chart, ConstantRate, Event, Problem, SemiLinear, solve, steps
from solvers.methods.interaction import Interaction, Lawson
from solvers.methods.runge_kutta import TABLEAUS, RungeKutta
from solvers.noise.translated import Translated

from .problems import Decay, force

F64 = torch.float64
EULER = RungeKutta(TABLEAUS[0])


@pytest.mark.parametrize("variable", ["clock", "noise_level", "signal_to_noise"])
def test_lawsons_chart_leads_back(variable: str) -> None:
    times = torch.tensor([0.3, 1.0, 2.0], dtype=F64)
    chart = Lawson(SemiLinear(force, Decay(-1.0)), variable, times[0], times[-1])
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=F64)
    clock = chart.to_clock(times)
    assert torch.allclose(chart.to_time(clock), times, rtol=1e-14)
    y = chart.enter(x, times[1])
    assert torch.allclose(y, x * math.exp(0.7), rtol=1e-14)  # back to the first time
    assert torch.allclose(chart.leave(y, times[1]), x, rtol=1e-14)
    event = chart.event(Event(0.5, clock[1], y))
    assert event.time == pytest.approx(1.0)
    assert torch.allclose(event.x, x, rtol=1e-14)


def test_the_linear_part_is_gone() -> None:
    still = SemiLinear(lambda t, x: torch.zeros_like(x), ConstantRate(-1.0))
    x, times = torch.ones(2, 1, dtype=F64), torch.tensor([0.0, 3.0, 5.0], dtype=F64)
    s = solve(still, x, times, Interaction("lawson_euler", EULER), path=True)
    assert s.path is not None
    assert torch.allclose(s.path[:, 0, 0], torch.exp(-times), rtol=1e-14)
    told = [event.x[0, 0].item() for event in steps(still, x, times, Interaction("lawson", EULER))]
    assert told == pytest.approx([math.exp(-3), math.exp(-5)], rel=1e-14)


class Line(Brownian):
    r"""A motion whose path is the line w(v) = v."""

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        return (t1 - t0).reshape(1, 1).double()

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        return self.increment(step, t0, t1), ((t1 - t0) ** 2 / 2).reshape(1, 1).double()


def test_a_motion_keeps_its_law_in_another_clock() -> None:
    # v = 4 t: w(4 t) / 2 has the variance t, so the line v becomes 2 t
    seen = Translated(Line(), lambda t: 4 * t, lambda w: -w)
    w, area = seen.increment_and_integral(0, torch.tensor(1.0), torch.tensor(3.0))
    assert w.item() == pytest.approx(-2 * 2)
    assert area.item() == pytest.approx(-2 * 2**2 / 2)
    assert seen.increment(0, torch.tensor(1.0), torch.tensor(3.0)).item() == pytest.approx(-4)


class Doubled(Chart):
    r"""The chart y = 2 x, v = -t."""

    def problem(self) -> Problem:
        raise NotImplementedError

    def to_clock(self, time: Tensor) -> Tensor:
        return -time

    def to_time(self, clock: Tensor) -> Tensor:
        return -clock

    def enter(self, x: Tensor, time: Tensor) -> Tensor:
        return 2 * x

    def leave(self, y: Tensor, time: Tensor) -> Tensor:
        return y / 2


def test_a_solution_leaves_a_chart_with_its_path_and_where_rows_stopped() -> None:
    chart, times = Doubled(), torch.linspace(0, 1, 5).double()
    x = torch.tensor([[1.0], [40.0]], dtype=F64)
    grows = ODE(lambda v, y: torch.where(y > 100, math.nan, torch.ones_like(y)).mul(-40))
    inside = solve(
        grows, chart.enter(x, times[0]), chart.to_clock(times), "euler", path=True, on_failure="partial",
    )  # fmt: skip
    s = chart.solution(inside, times)
    assert s.status == ("ok", "nonfinite")
    assert s.path is not None
    assert s.path[:, 0, 0].tolist() == pytest.approx([1, 6, 11, 16, 21])
    assert s.reached.tolist() == pytest.approx([1.0, 0.75])
    assert s.x[:, 0].tolist() == pytest.approx([21, 55])
    assert torch.equal(s.times, times)
