r"""A check that a network gives the same output for the same input.

With dropout left on, or noise drawn by the network itself, every call is a different network. A density, a round
trip, or an error estimate from two calls then measures this noise, and nothing in the result shows it.
"""

import torch
from torch import Tensor

from solvers.network_calls import uncounted
from solvers.noise.brownian import PROBES, keyed_normal

from ..doors.warning import warn
from .derivative import coarsest_eps, where_noise_is_data
from .score_model import Given, ScoreModel

ULPS = 4  # of the coarsest dtype: the difference of sums in another order
LEAST = 1e-5  # of a network's output: smaller noise is ignored
CURE = (
    "call .eval() on the network if that is due to dropout, and pass noise that it draws itself as a "
    "condition"
)
NUMBERS, PAIRS = 64, 8  # of all calls together, and maximum pairs of calls


def check_steady(model: ScoreModel, x: Tensor, use: str, rows: int | None = None) -> None:
    r"""Refuses a model for which two calls with the same input differ.

    The arguments are those of :func:`warn_of_randomness`.

    Raises:
        ValueError: If the calls differ by more than rounding explains.
    """

    share = _difference(model, x, rows)
    if share:
        raise ValueError(f"{_seen(share)}, so {use} is not defined: {CURE}.")


def warn_of_randomness(model: ScoreModel, x: Tensor, use: str, rows: int | None = None) -> None:
    r"""Warns about a model for which two calls with the same input differ.

    This takes two network calls, or a few more for few numbers, until a model with these conditions has been
    found to be steady. They are not counted.

    Arguments:
        model: The model, with its conditions bound.
        x: A state, which sets shape, dtype and device.
        use: The consequence, for messages.
        rows: The maximum number of rows computed at once. By default, all.
    """

    share = _difference(model, x, rows)
    if share:
        warn(f"{_seen(share)}, so {use}: {CURE}.")


def _seen(share: float) -> str:
    return f"two calls of the network with the same input differ by {share:.2g} of its output"


def _difference(
    model: ScoreModel, x: Tensor, rows: int | None, level: float | None = None
) -> float:
    r"""The root mean square difference of two calls, relative to that of a call; 0 if rounding explains it."""

    parts = model.parts.values()
    if parts:  # guidance itself may depend on a grid
        levels = model.part_levels(level or model.data_std)
        pairs = zip(parts, levels, strict=True)
        return max(_difference(part, x, rows, own) for part, own in pairs)
    owner = model
    while isinstance(owner, Given):
        owner = owner.model
    key = tuple(sorted(model.bound_names))
    if key in owner._steady:
        return 0.0
    if rows is not None and rows < len(x):
        model, x = model.rows(torch.arange(rows)), x[:rows]
    share = _asked_twice(model, x, level)
    if share > max(LEAST, ULPS * coarsest_eps(model, x)):
        return share
    owner._steady = owner._steady | {key}
    return 0.0


def _asked_twice(model: ScoreModel, x: Tensor, level: float | None) -> float:
    t, scale = where_noise_is_data(model, x, level)
    index = torch.arange(len(x), device=x.device)
    state = scale * keyed_normal(0, index, PROBES, 0, x[0].numel()).to(x).reshape(x.shape)
    devices = [x.device] if x.device.type == "cuda" else []
    pairs = min(max(1, NUMBERS // state.numel()), PAIRS)  # chance may spare a few numbers
    found = 0.0
    with uncounted(), torch.no_grad(), torch.random.fork_rng(devices):
        one = model.raw(state, t).detach().double()
        for _ in range(pairs):
            other = model.raw(state, t).detach().double()
            gap = (one - other).square().mean().sqrt()
            found = max(found, float(gap / one.square().mean().sqrt().clamp(min=1e-30)))
    return found
