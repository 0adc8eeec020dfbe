r"""A-FloPS: the velocity of a straight flow, split into a linear part and a residual that changes as little as it can.

In y = x / (alpha + sigma) and s = alpha / (alpha + sigma), the velocity is v = D - noise. Before each step, the
residual v - a y is made to agree best with the last one by a = <v - v', y - y'> / |y - y'|^2 for each sample (this
choice of a is ours: the paper's text was not at hand), and the linear equation with a residual that goes on in
a line is solved exactly.

References:
    | A-FloPS: Accelerating Diffusion Models via Adaptive Flow Path Sampler (Jin et al., 2025)
    | https://arxiv.org/abs/2509.00036
"""

from functools import partial

import torch
from torch import Tensor

import scoresde as ss

from .tools import Flow, levels

MOST = 20.0  # of a: it is 1 / (1 - s) for a state that moves with its noise


def run(
    model: ss.ScoreModel, z: Tensor, calls: int, grid: str, adaptive: bool = True, values: int = 2
) -> Tensor:
    at = levels(model, grid, calls - 1)
    flow, s = Flow(model, "data"), [1 / (1 + level) for level in at]
    y, last = flow.enter(z, at[0]) * s[0], None
    for i in range(calls - 1):
        D = flow.value(y / s[i], at[i])
        v = D - (y / s[i] - D) / at[i]
        a = torch.zeros((len(y), *(1,) * (y.ndim - 1)), dtype=y.dtype)
        if last is not None and adaptive:
            moved, turned = y - last[0], v - last[1]
            a = (row(moved * turned) / row(moved**2)).clamp(-MOST, MOST)
        h, u = s[i + 1] - s[i], v - a * y
        slope = 0 if last is None or values < 2 else (u - last[1] + a * last[0]) / (s[i] - last[2])
        last = y, v, s[i]
        grown = torch.exp(a * h)
        first = torch.where(a.abs() * h < 1e-4, h, torch.expm1(a * h) / a)
        second = torch.where(a.abs() * h < 1e-4, h**2 / 2, (first - h) / a)
        y = grown * y + first * u + second * slope
    return flow.denoised(y / s[-1], at[-1])


def row(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1).reshape(-1, *(1,) * (x.ndim - 1))


MEMBERS = {
    "a_flops_2": run,
    "a_flops_1": partial(run, values=1),
    "flops_2": partial(run, adaptive=False),
}
