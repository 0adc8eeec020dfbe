r"""Saving of models: nothing is written that could not be loaded again."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from solvers.doors.signatures import checked

from .. import networks
from ..files import Entry, Json, replacing
from ..models.network import NetworkScore
from .build import (
    MODEL,
    PREFIX,
    build_network,
    build_process,
    check_card,
    check_numbers,
    describe_process,
    take_moments,
)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOST = 0.01  # of a weight's norm: the loss in float16 that is accepted by default


@checked
def save(
    model: NetworkScore,
    file: str | Path,
    card: Json | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes a model to `file.safetensors` and `file.json`, for :func:`load`.

    The network must be one of :mod:`scoresde.networks`, and the process and its schedule must be from this
    package, since nothing in a file is executed. Networks do not keep their settings, so pass them as
    `card["network"]`, such as `{"name": "UNet", "settings": {...}}`.

    Arguments:
        model: The score model of a network.
        file: The path, without suffix.
        card: The entries of the card, in addition to those that the model provides.
        dtype: The dtype of the weights. By default, float16, or float32 for weights that float16 cannot hold
            within one percent. To keep all numbers exactly, pass torch.float32, or torch.float64 for weights of
            that dtype.

    Returns:
        The path of the card.

    Raises:
        TypeError: If the model is not a :class:`scoresde.NetworkScore`.
        ValueError: If it could not be loaded again, or a number does not fit into the dtype.

    Examples:
        >>> digits = ss.load("digits")
        >>> ss.load(ss.save(digits, folder / "copy", digits.card)).shape
        (1, 8, 8)
    """

    if not isinstance(model, NetworkScore):
        raise TypeError(
            f"model must be a NetworkScore, whose network has weights to save, but is a {type(model).__name__}; "
            "for a guided or conditioned model, save the model that it wraps."
        )
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, but is {dtype}.")
    card = {
        **(card or getattr(model, "card", {})),
        "process": describe_process(model.process),
        "predicts": model.predicts,
        "conditions": list(model.conditions),
        "shape": list(model.shape or ()),
        "data_std": model.data_std,
        "moments": None if model.moments is None else {"rest": model.moments.rest},
    }
    if model.moments is None and model.data_scale not in (None, model.data_std):
        card["data_scale"] = model.data_scale
    tensors = {}
    if model.moments is not None:
        for name in ("mean", "basis", "variances"):
            value = getattr(model.moments, name)
            if value is not None:
                tensors[PREFIX + name] = value.detach().cpu().float().contiguous()
    return write_model(model.network, Path(file), card, tensors, MODEL, dtype)


def write_model(
    network: object,
    file: Path,
    card: Json,
    others: dict[str, Tensor],
    entries: Mapping[str, Entry],
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes the weights of a network, other tensors as they are, and the card, if they can be read again.

    Arguments:
        network: The network.
        file: The path, without suffix.
        card: The card.
        others: The tensors that are not weights.
        entries: The required entries of the card.
        dtype: The dtype of the weights, as in :func:`save`.

    Returns:
        The path of the card.

    Raises:
        ValueError: If these files could not be loaded, or a number does not fit into the dtype.
    """

    if not isinstance(network, nn.Module):
        raise TypeError(f"only networks that are modules have weights to save, not {network!r}.")
    if "network" not in card:
        raise ValueError(
            "card must have the entry 'network' with its name and settings, one of "
            f"{', '.join(networks.__all__)}; other networks cannot be loaded from files."
        )
    weights = {name: _stored(name, value, dtype) for name, value in network.state_dict().items()}
    _check_readable(network, card, weights, others, entries)
    text = json.dumps(card, indent=2, allow_nan=False) + "\n"
    with replacing(file.with_suffix(".safetensors")) as part:
        save_file({**weights, **others}, part)
    with replacing(file.with_suffix(".json")) as part:
        part.write_text(text)
    return file.with_suffix(".json")


def _stored(name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    r"""A weight in the dtype of the file, after checking that it fits."""

    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.clone()
    check_numbers(f"the weight {name!r}", value)
    if dtype is None:
        half = value.half()
        gone = (half.double() - value.double()).norm() > LOST * value.double().norm()
        return value.float() if bool(gone) else half
    found = value.to(dtype, copy=True)
    if not bool(found.isfinite().all()):
        raise ValueError(
            f"the weight {name!r} goes to {value.abs().max():.3g}, beyond {dtype}; pass "
            "dtype=torch.float32 or wider, or leave it out."
        )
    return found


def _check_readable(
    network: nn.Module,
    card: Json,
    weights: dict[str, Tensor],
    others: dict[str, Tensor],
    entries: Mapping[str, Entry],
) -> None:
    r"""Refuses a model that cannot be loaded again, by loading it."""

    try:
        known = json.loads(json.dumps(card, allow_nan=False))
        check_card(known, entries)
        named = getattr(networks, known["network"]["name"])
        if type(network) is not named:
            raise TypeError(
                f"the card names the network {named.__name__}, but this is a {type(network).__name__}"
            )
        take_moments(dict(others), known)
        build_process(known["process"])
        build_network(known, weights)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        words = str(error).splitlines()[0].removesuffix(".")
        raise ValueError(
            f"this could not be loaded again, so it is not saved: {words}. Files hold the networks "
            f"{', '.join(networks.__all__)} alone, and processes of this package."
        ) from None
