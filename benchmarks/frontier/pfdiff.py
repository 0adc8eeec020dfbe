r"""PFDiff-k_h: a springboard reached with the last value, whose own value takes the whole step.

From the state at level i, the last value leads h levels ahead; the value there leads k + 1 levels from i. So k + 1
levels take one call, and the first step takes one of its own.

References:
    | PFDiff: Training-Free Acceleration of Diffusion Models Combining Past and Future Scores (Wang et al., 2025)
    | https://arxiv.org/abs/2408.08822
"""

from functools import partial

from torch import Tensor

import scoresde as ss

from .tools import Flow, levels


def run(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, k: int = 1, h: int = 1) -> Tensor:
    at = levels(model, grid, 1 + (k + 1) * (calls - 2))
    flow = Flow(model, "noise")
    X = flow.enter(z, at[0])
    value = flow.value(X, at[0])
    X = flow.step(X, [value], at[:1], at[0], at[1])
    for i in range(1, len(at) - 1, k + 1):
        spring = flow.step(X, [value], at[i : i + 1], at[i], at[i + h])
        value = flow.value(spring, at[i + h])
        X = flow.step(X, [value], at[i : i + 1], at[i], at[i + k + 1])
    return flow.denoised(X, at[-1])


MEMBERS = {"pfdiff_1": run, "pfdiff_2_1": partial(run, k=2), "pfdiff_2_2": partial(run, k=2, h=2)}
