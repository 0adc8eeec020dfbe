r"""The card of a trained model: its data, its options, and what is known of the result."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ..files import Json
from ..models.data_moments import moments
from ..models.network import NetworkScore
from .batches import Batch, Source
from .data import Form
from .network import classes_of
from .objective import current
from .validation import ALWAYS

FULL = 256  # dimensions up to which all principal axes of the data are kept


def data_facts(
    source: Source, some: Batch, held: Batch | None, form: Form, words: str
) -> dict[str, object]:
    r"""Returns what is known of the data, as plain values.

    Arguments:
        source: The data that is trained on.
        some: Samples of it.
        held: The held-out data.
        form: The form of the data.
        words: Where it comes from.
    """

    x = some.x.double()
    return {
        "source": words,
        "samples": source.count,
        "held out": 0 if held is None else len(held.x),
        "shape": list(x.shape[1:]),
        "mean": float(x.mean()),
        "standard deviation": float(x.std()),
        "lowest": float(x.min()),
        "highest": float(x.max()),
        "classes": classes_of(some),
        "bins": form.bins,
        "low": form.low,
        "high": form.high,
    }


def fingerprint(some: Batch) -> str:
    r"""Returns a digest of samples, by which a resumed run knows its data."""

    digest = hashlib.sha256()
    parts = {"x": some.x, "z": some.z, **some.condition}
    for name, value in parts.items():
        if isinstance(value, Tensor):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def set_moments(model: NetworkScore, some: Batch, form: Form) -> None:
    r"""Gives a model the moments of its data, with the noise that fills the bins of data on levels.

    Data whose states the training changes has none.
    """

    size = some.x[0].numel()
    if len(some.x) >= 2:
        x = current(model, form.noisy(some.x.double(), torch.arange(len(some.x)), 0, ALWAYS))
        if x.requires_grad:
            return
        model.moments = moments(x, "full" if size <= FULL and len(x) > size else "diagonal")


def card_of(
    name: str,
    network: Json,
    data: Mapping[str, object],
    training: Mapping[str, object],
    measured: Mapping[str, object],
    given: Json | None,
) -> Json:
    r"""Returns the card of a model, with the entries that the user gave last."""

    return {
        "name": name,
        **({"network": network} if network else {}),
        "data": {n: value for n, value in data.items() if value is not None},
        "training": {n: value for n, value in training.items() if value is not None},
        **measured,
        **(given or {}),
    }
