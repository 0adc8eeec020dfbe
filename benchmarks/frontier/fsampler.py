r"""FSampler: on some steps the value is extrapolated from the last ones, without a call.

After the first two steps, every third (or second) value is predicted by finite differences of order 2 or 3, as if
the levels were evenly spaced; the steps are those of iPNDM-2, or of its kind in the coordinates of the moments.

References:
    | FSampler: Training Free Acceleration of Diffusion Sampling via Epsilon Extrapolation (Vladimir, 2025)
    | https://arxiv.org/abs/2511.09180
"""

from functools import partial

from torch import Tensor

import scoresde as ss
from solvers.methods.weights import even

from .tools import Flow, levels

PREDICTORS = {2: (2.0, -1.0), 3: (3.0, -3.0, 1.0)}


def run(
    model: ss.ScoreModel,
    z: Tensor,
    calls: int,
    grid: str,
    form: str = "noise",
    order: int = 2,
    every: int = 3,
) -> Tensor:
    asked = [True, True]
    while sum(asked) < calls - 1:  # the last value before the denoising is never predicted
        asked.append(len(asked) % every != every - 1)
    at = levels(model, grid, len(asked))
    flow, values = Flow(model, form), []
    X = flow.enter(z, at[0])
    for i, ask in enumerate(asked):
        factors = PREDICTORS[min(order, len(values))] if not ask else ()
        known = sum(a * v for a, v in zip(factors, values, strict=False))
        values = [flow.value(X, at[i]) if ask else known, *values][:3]
        two = values[:2]
        X = flow.step(X, two, at[i - len(two) + 1 : i + 1][::-1], at[i], at[i + 1], rule=even)
    return flow.denoised(X, at[-1])


MEMBERS = {
    "fsampler_h2": run,
    "fsampler_h3": partial(run, order=3),
    "moment_fsampler_h2": partial(run, form="moments"),
}
