r"""RX-DPM: Richardson extrapolation from one step over two intervals and a step over each, with the same calls.

For Euler's steps of lengths h and k, whose errors are c (h^2 + k^2) and c (h + k)^2, the extrapolated state
integrates the line through both values exactly: it is a method of two stages whose place the grid chooses. Its steps
are in the noise level, as published, or in the coordinates of the moments. With p = 2, the steps are those of
DPM-Solver++ (2M), and the lengths those in log-SNR.

References:
    | Enhanced Diffusion Sampling via Extrapolation with Multiple ODE Solutions (Choi et al., 2025), section 3
    | https://arxiv.org/abs/2504.01855
"""

import math
from functools import partial

from torch import Tensor

import scoresde as ss

from .tools import Flow, levels


def run(
    model: ss.ScoreModel,
    z: Tensor,
    calls: int,
    grid: str,
    form: str = "noise",
    variable: str = "noise_level",
    p: int = 1,
) -> Tensor:
    at = levels(model, grid, calls - 1)
    flow = Flow(model, form)
    X, whole, past, before = flow.enter(z, at[0]), None, [], []
    for i in range(calls - 1):
        if i % 2 == 0:
            start, coarse = X, [*before[:p]]
        past = [(flow.value(X, at[i]), at[i]), *past][:p]
        X = step(flow, X, past, at[i], at[i + 1], variable)
        if i % 2 == 0:
            before = coarse = [past[0], *coarse][:p]
            if i + 2 < len(at):
                whole = step(flow, start, coarse, at[i], at[i + 2], variable)
        else:
            h, k = (length(*ends, variable) for ends in (at[i - 1 : i + 1], at[i : i + 2]))
            fine, once = h ** (p + 1) + k ** (p + 1), (h + k) ** (p + 1)
            X = X + (X - whole) * (fine / (once - fine))
    return flow.denoised(X, at[-1])


def step(flow, X, known, start, stop, variable):
    values, places = zip(*known, strict=True)
    return flow.step(X, values, places, start, stop, variable)


def length(start: float, stop: float, variable: str) -> float:
    return start - stop if variable == "noise_level" else math.log(start / stop)


MEMBERS = {
    "rx_euler": run,
    "rx_moment_1": partial(run, form="moments", variable="clock"),
    "rx_exponential_2": partial(run, form="data", variable="clock", p=2),
    "rx_moment_2": partial(run, form="moments", variable="clock", p=2),
}
