r"""Measurements of a trained model on held-out data, for its card."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import solvers

from ..checking.result import ScoreCheck
from ..checking.verb import LEAST, check_score
from ..files import Json
from ..likelihood.bits import bits_per_dim
from ..likelihood.discrete import discrete_log_likelihood
from ..likelihood.result import Likelihood
from ..likelihood.verb import log_likelihood
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..models.self_conditioned import NAME as ESTIMATE
from ..models.self_conditioned import SelfConditioned
from .batches import Batch
from .data import Form
from .network import around
from .objective import current
from .validation import scored, validated

CHECKED, SCORED = 160, 64  # held-out samples of a check, and of a likelihood
EXACT = 4  # dimensions up to which divergences are exact
KNOWN = (ValueError, TypeError, solvers.SolverError)  # of a model that is not trained far enough


def assess(
    model: NetworkScore,
    held: Batch,
    form: Form,
    null: Mapping[str, Tensor],
    *,
    chosen: bool = False,
) -> tuple[ScoreCheck | None, Json]:
    r"""Returns the check of a model, and its card's entries "check" and "metrics".

    Arguments:
        model: The model.
        held: The held-out data.
        form: Its form.
        null: The values that stand for no condition, if conditions were dropped.
        chosen: Whether the weights are those with the least loss on held-out data.
    """

    held = held._replace(x=current(model, held.x).detach())
    plain, found = _plain(model, held), {}
    check, words = None, ""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        asked = model.learned == "score" and model.process.has_scales
        if asked and len(held.x) >= LEAST:
            check, words = _check(plain, held.rows(_places(held, CHECKED)))
            found["check"] = _entry(check, words)
        if model.learned in ("score", "flow"):
            places = _places(held, SCORED)
            metrics = _metrics(plain, held.rows(places), form, null)
            shared = int(torch.isin(places.cpu(), validated(len(held.x))).sum()) if chosen else 0
            told_of = {"samples that chose the weights": shared} if shared else {}
            found["metrics"] = {**metrics, **told_of}
    said = list(dict.fromkeys(str(one.message) for one in told))
    return check, {**found, **({"warnings": said} if said else {})}


def _places(held: Batch, size: int) -> Tensor:
    return scored(len(held.x), size).to(held.x.device)


def _metrics(
    model: ScoreModel, held: Batch, form: Form, null: Mapping[str, Tensor]
) -> dict[str, object]:
    r"""Likelihoods, with the conditions of the data, and without if they were dropped in training."""

    found = _scored(model, held, form, held.condition)
    if null and set(null) >= set(held.condition):
        none = {
            name: null[name].expand(len(held.x), *value.shape[1:])
            for name, value in held.condition.items()
        }
        without = _scored(model, held, form, none)
        found |= {f"{name}, conditions dropped": value for name, value in without.items()}
    return found


def _plain(model: NetworkScore, held: Batch) -> ScoreModel:
    r"""The model of states, the form of held-out data; given its own estimate, if it takes one."""

    made = model
    if model.transform is not None:
        made = around(model, model.network)  # type: ignore[arg-type]
        made.transform = None
    own = ESTIMATE in model.conditions and ESTIMATE not in held.condition
    return SelfConditioned(made, "twice") if own else made


def _check(model: ScoreModel, held: Batch) -> tuple[ScoreCheck | None, str]:
    try:
        conditions: dict[str, Any] = held.condition
        return check_score(model, held.x.float(), **conditions), ""
    except KNOWN as error:
        return None, str(error)


def _entry(check: ScoreCheck | None, words: str) -> Json:
    if check is None:
        return {"ok": False, "findings": [words]}
    levels = [
        [level.noise_level, level.error] for level in check.levels if math.isfinite(level.error)
    ]
    return {
        "ok": check.ok,
        "findings": list(check.findings),
        "error against the linear denoiser's, by noise level": levels,
    }


def _scored(
    model: ScoreModel, held: Batch, form: Form, condition: Mapping[str, Tensor]
) -> dict[str, object]:
    r"""The mean log-likelihood with its standard error over samples, in bits per dimension for data on levels."""

    x, given = held.x, dict[str, Any](condition)
    options: dict[str, Any] = {} if x[0].numel() <= EXACT else {"probes": 1}
    if given:
        model = model.given(**given)
    try:
        found: Likelihood
        if form.bins is None:
            found = log_likelihood(model, x.float(), **options)
            name, values = "log-likelihood in nats", found.nats
        else:
            low, high = form.ends
            found = discrete_log_likelihood(
                model, x, levels=form.bins, low=low, high=high, **options
            )
            name, values = "bits/dim", bits_per_dim(found)
    except KNOWN as error:
        return {"log-likelihood": f"none: {error}"}
    spread = float(values.std()) / math.sqrt(len(values))
    if not (math.isfinite(spread) and math.isfinite(float(values.mean()))):
        return {"log-likelihood": "none: it is not finite"}
    return {
        name: round(float(values.mean()), 5),
        f"{name}, standard error": round(spread, 5),
        f"{name}, samples": len(values),
    }
