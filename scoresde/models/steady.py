r"""Whether a network answers the same to the same input, seen before it is relied on.

Dropout that was left on, or noise that a network draws for itself, is another network at every call. A density, a
way there and back, or an error estimate from two calls then measures this noise, and nothing in the result tells.
"""

import torch
from torch import Tensor

from solvers.network_calls import uncounted
from solvers.noise.brownian import PROBES, keyed_normal

from ..doors.warning import warn
from .derivative import coarsest_eps, where_noise_is_data
from .score_model import Given, ScoreModel

ULPS = 4  # of the coarsest dtype, by which sums in another order may differ
LEAST = 1e-5  # of what a network returns: noise below is none
CURE = (
    "call .eval() on the network if that is due to dropout, and pass noise that it draws by itself as a "
    "condition"
)
NUMBERS, PAIRS = 64, 8  # of all calls together, and pairs of calls at most


def check_steady(model: ScoreModel, x: Tensor, use: str, rows: int | None = None) -> None:
    r"""Refuses a model for which two calls with the same input differ.

    Arguments are those of :func:`warn_of_randomness`.

    Raises:
        ValueError: If they differ by more than rounding explains.
    """

    share = _difference(model, x, rows)
    if share:
        raise ValueError(f"{_seen(share)}, so {use} is not defined: {CURE}.")


def warn_of_randomness(model: ScoreModel, x: Tensor, use: str, rows: int | None = None) -> None:
    r"""Warns of a model for which two calls with the same input differ.

    It takes two network calls, or some more for few numbers, until a model with these conditions is found to be
    steady. They are not counted.

    Arguments:
        model: The model, with its conditions bound.
        x: A state, which gives shape, dtype and device.
        use: The consequence, for messages.
        rows: How many rows may be computed at once. By default, all.
    """

    share = _difference(model, x, rows)
    if share:
        warn(f"{_seen(share)}, so {use}: {CURE}.")


def _seen(share: float) -> str:
    return f"two calls of the network with the same input differ by {share:.2g} of its output"


def _difference(
    model: ScoreModel, x: Tensor, rows: int | None, level: float | None = None
) -> float:
    r"""The root mean square by which two calls differ, against that of a call; 0 if rounding explains it."""

    parts = model.parts.values()
    if parts:  # guidance itself may be that of a grid
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
    pairs = min(max(1, NUMBERS // state.numel()), PAIRS)  # of few numbers, chance may spare all
    found = 0.0
    with uncounted(), torch.no_grad(), torch.random.fork_rng(devices):
        one = model.raw(state, t).detach().double()
        for _ in range(pairs):
            other = model.raw(state, t).detach().double()
            gap = (one - other).square().mean().sqrt()
            found = max(found, float(gap / one.square().mean().sqrt().clamp(min=1e-30)))
    return found
