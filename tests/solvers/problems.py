r"""A problem with a known solution, as an ODE, an SDE without noise, and a semi-linear problem."""

import torch
from torch import Tensor

from solvers import ODE, SDE, ConstantRate, Problem, SemiLinear, Solver


def exact(t: Tensor) -> Tensor:
    return (torch.cos(t) + torch.sin(t)) / 2 + torch.exp(-t)  # of dx = -x + cos(t)


def force(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(2 * x) + torch.cos(t) - torch.sin(2 * exact(t))  # the same, not linear


def drift(t: Tensor, x: Tensor) -> Tensor:
    return -x + force(t, x)


class Decay(ConstantRate):
    r"""A constant rate, with variables in which to be a polynomial, and a noise level."""

    def variable(self, name: str, t: Tensor) -> Tensor:
        return {"clock": t, "noise_level": torch.exp(-t), "time": t + t**2 / 10}[name]

    def level(self, t: Tensor) -> Tensor:
        return torch.exp(-t)

    def time_of(self, level: Tensor) -> Tensor:
        return -level.log()


PROBLEMS: dict[type[Problem], Problem] = {
    ODE: ODE(drift),
    SDE: SDE(drift, torch.zeros_like),
    SemiLinear: SemiLinear(force, Decay(-1.0)),
}


def problem_for(solver: Solver) -> Problem:
    return PROBLEMS[solver.solves]


def ramped(start: float, stop: float, steps: int) -> Tensor:
    r"""An even grid whose first step is split into ever shorter ones: multistep methods need them."""

    times = torch.linspace(start, stop, steps + 1)
    h = times[1] - times[0]
    return torch.cat([times[:1], start + h * 2.0 ** -torch.arange(14, 0, -1), times[1:]])


def start(t: float, rows: int = 1) -> Tensor:
    return exact(torch.tensor(t)).expand(rows, 1).clone()
