r"""A problem with a known solution, as an ODE, an SDE without noise, and a semi-linear problem."""

import torch
from torch import Tensor

from solvers import ODE, SDE, Problem, SemiLinear, Solver


def exact(t: Tensor) -> Tensor:
    return (torch.cos(t) + torch.sin(t)) / 2 + torch.exp(-t)  # of dx = -x + cos(t)


def force(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(2 * x) + torch.cos(t) - torch.sin(2 * exact(t))  # the same, not linear


def drift(t: Tensor, x: Tensor) -> Tensor:
    return -x + force(t, x)


PROBLEMS: dict[type[Problem], Problem] = {
    ODE: ODE(drift),
    SDE: SDE(drift, torch.zeros_like),
    SemiLinear: SemiLinear(force, -1.0),
}


def problem_for(solver: Solver) -> Problem:
    return PROBLEMS[solver.solves]


def start(t: float, rows: int = 1) -> Tensor:
    return exact(torch.tensor(t)).expand(rows, 1).clone()
