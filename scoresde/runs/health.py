r"""Whether a network answers for each row as if it were alone, and the same each time, seen before it is measured.

Batch statistics, or a mean taken over the batch, couple the rows: a sample then depends on those that happen to be
computed with it, and with them all that is measured.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from solvers.network_calls import uncounted
from solvers.noise.brownian import PROBES, keyed_normal

from ..doors.warning import warn
from ..models.derivative import coarsest_eps, where_noise_is_data
from ..models.estimate import estimate
from ..models.score_model import Given, ScoreModel
from ..oracles.mixture import Oracle

ROWS, ALONE = 8, 1  # of a batch, and of its part that is asked alone
LIMIT = 1e-4  # of what a network returns, beyond which a difference is no rounding
ULPS = 16  # of the coarsest dtype, by which matrix products of other sizes may differ
TF32 = 1e-2  # what products of accelerators may differ by


class Health(NamedTuple):
    r"""How two answers to the same rows differ, as a share of the answer.

    Arguments:
        repeat: By which two calls with the same input differ.
        alone: By which rows differ between a call of their own and one with others.
        limit: What rounding may explain of either.
    """

    repeat: float
    alone: float
    limit: float


def health(model: ScoreModel, x: Tensor, t: Tensor) -> Health:
    r"""Returns how a model's answers differ, by three calls that are not counted.

    Arguments:
        model: The model, with its conditions bound.
        x: States, with shape (B, *), of which a few are taken.
        t: Their time, with shape ().
    """

    few = torch.arange(min(ROWS, len(x)))
    model, x = model.rows(few), x[: len(few)]
    part = model.rows(few[:ALONE])
    devices = [x.device] if x.device.type == "cuda" else []
    with uncounted(), torch.no_grad(), torch.random.fork_rng(devices):
        alone = _answer(part, x[:ALONE], t)
        one, two = (_answer(model, x, t) for _ in range(2))
    size = one.double().square().mean().sqrt().clamp(min=1e-30)
    repeat = (one - two).double().square().mean().sqrt() / size
    apart = (one[:ALONE] - alone).double().square().mean().sqrt() / size
    return Health(float(repeat), float(apart) if len(x) > ALONE else 0.0, _limit(model, x))


def _answer(model: ScoreModel, x: Tensor, t: Tensor) -> Tensor:
    return estimate(model, x, t) if model.process.has_levels else model.score(x, t)


def warn_of_health(model: ScoreModel, x: Tensor) -> None:
    r"""Warns, once for each model, if its answers differ between calls, or between rows alone and with others.

    It takes three network calls, which are not counted. Exact models and single rows are not asked.

    Arguments:
        model: The model, with its conditions bound.
        x: States, which give shape, dtype and device.
    """

    owner = model
    while isinstance(owner, Given):
        owner = owner.model
    key = tuple(sorted(model.bound_names))
    if isinstance(owner, Oracle) or key in owner._healthy or len(x) <= ALONE:
        return
    owner._healthy = owner._healthy | {key}
    few = torch.arange(min(ROWS, len(x)), device=x.device)
    t, scale = where_noise_is_data(model, x[:1])
    state = scale * keyed_normal(0, few, PROBES, 0, x[0].numel()).to(x).reshape(-1, *x.shape[1:])
    try:
        found = health(model, state, t[0])
    except torch.OutOfMemoryError:
        raise
    except Exception:  # it fails again where it is measured, which says more
        return
    for words in unhealthy(found):
        warn(words)


def unhealthy(found: Health) -> list[str]:
    r"""Returns in words what is wrong; rows of random answers differ by chance, of which nothing is said."""

    if not found.repeat <= found.limit:
        return [random(found)]
    return [] if found.alone <= found.limit else [coupled(found)]


def coupled(found: Health) -> str:
    r"""Returns in words that rows are coupled."""

    return (
        f"the network's answer for a row differs by {found.alone:.2g} of its size between a call of this row "
        "alone and one with others, so samples depend on their batch: call .eval() on the network if it has batch "
        "normalisation, and take statistics over each sample, not over the batch."
    )


def random(found: Health) -> str:
    r"""Returns in words that calls differ."""

    return (
        f"two calls of the network with the same input differ by {found.repeat:.2g} of its answer: call "
        ".eval() on the network if that is due to dropout, and pass noise that it draws by itself as a condition."
    )


def _limit(model: ScoreModel, x: Tensor) -> float:
    rounding = max(LIMIT, ULPS * coarsest_eps(model, x))
    return max(rounding, TF32) if x.device.type == "cuda" else rounding
