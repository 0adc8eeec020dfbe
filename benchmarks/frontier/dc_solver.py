r"""DC-Solver: after each call, the newest value is moved along the polynomial through the known ones.

The place to which it moves, one ratio per step, is fitted to a teacher's states at the end of the step, on a batch of
noise of its own.

References:
    | DC-Solver: Improving Predictor-Corrector Diffusion Sampler via Dynamic Compensation (Zhao et al., 2024)
    | https://arxiv.org/abs/2409.03755
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

import scoresde as ss
import solvers

from .tools import Flow, levels

ROWS, SEED, VALUES = 64, 7, 3


@cache
def taught(model: ss.ScoreModel, at: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    r"""Returns noise, and where the flow leads it at each level."""

    z = model.process.prior_sample((ROWS, *model.shape), seed=SEED, dtype=torch.float64)
    times = torch.tensor([model.process.at_noise_level(level) for level in at])
    s = ss.decode(model, z, rtol=1e-4, atol=1e-4, times=times.double(), path=True, denoise=False)
    return z, s.path


@cache
def ratios(model: ss.ScoreModel, calls: int, grid: str, form: str) -> tuple[float, ...]:
    r"""Returns the ratios, each the best for the state after its step, given those before."""

    at = levels(model, grid, calls - 1)
    z, path = taught(model, tuple(at))
    flow, found = Flow(model, form), []
    ends = [flow.enter(x, level) for x, level in zip(path, at, strict=True)]

    def best(i: int, move: Callable[[float], Tensor]) -> float:
        return minimize_scalar(
            lambda ratio: (move(ratio) - ends[i + 1]).square().mean().item(), (0.8, 1.0)
        ).x

    follow(flow, z, at, lambda i, move: found.append(best(i, move)) or found[-1])
    return tuple(found)


def follow(
    flow: Flow, z: Tensor, at: list[float], ratio: Callable[[int, Callable], float]
) -> Tensor:
    r"""Returns the state at the last level; `ratio` is asked for each ratio, and told what it would lead to."""

    X, known = flow.enter(z, at[0]), []
    for i in range(len(at) - 1):
        known = [flow.value(X, at[i]), *known][:VALUES]
        places = at[max(0, i - VALUES + 1) : i + 1][::-1]
        move = partial(_move, flow, X, known, places, at[i + 1])
        chosen = ratio(i, move) if i else 1.0
        known[0] = _moved(known, places, chosen)
        X = flow.step(X, known, places, at[i], at[i + 1])
    return X


def _move(
    flow: Flow, X: Tensor, known: list[Tensor], places: list[float], stop: float, ratio: float
) -> Tensor:
    return flow.step(X, [_moved(known, places, ratio), *known[1:]], places, places[0], stop)


def _moved(known: list[Tensor], places: list[float], ratio: float) -> Tensor:
    if len(known) == 1:
        return known[0]
    clock = -torch.tensor(places, dtype=torch.float64).log()
    there = torch.lerp(clock[1], clock[0], ratio)
    out = torch.zeros_like(known[0])
    for j, value in enumerate(known):
        others = torch.cat([clock[:j], clock[j + 1 :]])
        out += ((there - others) / (clock[j] - others)).prod().item() * value
    return out


def run(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, form: str = "data") -> Tensor:
    with solvers.counting():  # the fit is no part of the run
        known = ratios(model, calls, grid, form)
    at = levels(model, grid, calls - 1)
    flow = Flow(model, form)
    return flow.denoised(follow(flow, z, at, lambda i, move: known[i - 1]), at[-1])


MEMBERS = {"dc_solver": run, "moment_dc_solver": partial(run, form="moments")}
