r"""What two measurements must share, if one is to continue the other."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..files import Json
from ..models.data_moments import Moments
from ..models.score_model import Given, ScoreModel
from .identity import identity
from .plan import describe_conditions, describe_process, digest, fingerprint

IDENTITY = "identity"  # of everything in a model; its fingerprint may be that of a model inside


def describe_setup(model: ScoreModel, data: Tensor | None, options: Mapping[str, object]) -> Json:
    r"""Returns the settings that two measurements must share, if one is to continue the other."""

    known = model.moments
    return {
        "model": fingerprint(model),
        IDENTITY: identity(model),
        "process": describe_process(model),
        "moments": None
        if known is None
        else digest(torch.cat([known.mean.flatten(), known.variances, *_curves(known)])),
        "conditions": describe_conditions(model),
        "data": None if data is None else f"{len(data)} samples, {digest(data)}",
        **{name: str(value) for name, value in options.items() if name != "device"},
    }


def _curves(known: Moments) -> list[Tensor]:
    r"""The statistics of a model by noise level, if they are known."""

    curves = known.curves
    return [] if curves is None else [curves.rates.flatten(), curves.sizes.flatten()]


def check_same(
    file: str | Path,
    noun: str,
    before: Mapping[str, object],
    now: Mapping[str, object],
    model: ScoreModel,
) -> None:
    r"""Refuses to continue a file whose settings differ.

    Files of earlier versions have no identity of their model. They are continued where its fingerprint says
    everything.

    Arguments:
        file: The file.
        noun: What it holds.
        before: The settings in the file.
        now: The settings of the run that would continue it.
        model: The model of that run.

    Raises:
        ValueError: If they differ; the message names the first that does.
    """

    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    others = [name for name in names if name != IDENTITY]
    cure = "pass another file, or remove it."
    if others:
        name = others[0]
        raise ValueError(
            f"{file} holds another {noun}, with {name}={before.get(name)}, not {now.get(name)}; {cure}"
        )
    if names and IDENTITY in before:
        raise ValueError(
            f"{file} holds another {noun}, of a model of the same name with other settings or weights; {cure}"
        )
    if names and not _is_told(model):
        raise ValueError(
            f"{file} is of an earlier version, which kept no more of a model than its name: the {noun} may be of "
            f"other settings, such as another scale of guidance; {cure}"
        )


def _is_told(model: ScoreModel) -> bool:
    r"""Whether a fingerprint says everything of a model: it is one of ours, with none inside but conditions."""

    inside = [m for m in model.modules() if isinstance(m, ScoreModel) and not isinstance(m, Given)]
    return len(inside) == 1 and type(inside[0]).__module__.startswith("scoresde.")
