r"""AMED-Solver with the same mid-points for all samples: two calls per step, the second at a fitted place.

The step takes the value at a mid-point for the whole of it. Its place, a factor of its weight and one of the noise
level that the network is told are fitted to a teacher's states at the end of the step, on a batch of noise of its
own. In the paper they are found for each sample by a small network.

References:
    | Fast ODE-based Sampling for Diffusion Models in Around 5 Steps (Zhou et al., 2024), section 4
    | https://arxiv.org/abs/2312.00094
"""

from functools import cache, partial

import torch
from scipy.optimize import minimize
from torch import Tensor

import scoresde as ss
import solvers

from .dc_solver import taught
from .tools import Flow, levels

START = (0.5, 1.0, 1.0)  # the place, and the factors


@cache
def midpoints(model: ss.ScoreModel, steps: int, grid: str, form: str) -> tuple[tuple, ...]:
    r"""Returns what is best for the state after each step, given those before."""

    at = levels(model, grid, steps)
    z, path = taught(model, tuple(at))
    flow, found = Flow(model, form), []
    X = flow.enter(z, at[0])
    for i in range(steps):
        value, end = flow.value(X, at[i]), flow.enter(path[i + 1], at[i + 1])

        def loss(chosen: tuple[float, ...], at: list[float] = at[i : i + 2], X: Tensor = X,
                 value: Tensor = value, end: Tensor = end) -> float:  # fmt: skip
            if not 0.05 < chosen[0] < 0.95:
                return 1e9
            return (step(flow, X, value, *at, *chosen) - end).square().mean().item()

        best = minimize(loss, START, method="Nelder-Mead", options={"maxfev": 60}).x
        found.append(tuple(best.tolist()))
        X = step(flow, X, value, at[i], at[i + 1], *found[-1])
    return tuple(found)


def step(
    flow: Flow,
    X: Tensor,
    value: Tensor,
    start: float,
    stop: float,
    place: float,
    weight: float,
    told: float,
) -> Tensor:
    middle = start ** (1 - place) * stop**place
    inside = flow.step(X, [value], [start], start, middle)
    t = torch.tensor([told * middle], dtype=torch.float64).clamp(0.002, 80.0)
    value = flow.problem.at(-t.log(), inside)[0](inside)  # alpha = 1
    return flow.step(X, [weight * value], [middle], start, stop)


def run(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, form: str = "noise") -> Tensor:
    steps = (calls - 1) // 2
    with solvers.counting():  # the fit is no part of the run
        known = midpoints(model, steps, grid, form)
    at = levels(model, grid, steps)
    flow = Flow(model, form)
    X = flow.enter(z, at[0])
    for i, chosen in enumerate(known):
        X = step(flow, X, flow.value(X, at[i]), at[i], at[i + 1], *chosen)
    return flow.denoised(X, at[-1])


MEMBERS = {"amed": run, "moment_amed": partial(run, form="moments")}
