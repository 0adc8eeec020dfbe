r"""Loading and saving models. Nothing in a file is executed.

A model is two files of one name: `NAME.safetensors` holds the weights, and the moments of the data if
they are known, and `NAME.json`, its card,
says what they are: network, process, what is predicted, data, licence, measurements. The card names
networks, processes and schedules of this package, and their settings are plain numbers.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import networks
from ..network_score import NetworkScore
from ..oracles import check_labels
from ..stored import Entry, replacing
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

EMBEDDED = Path(__file__).parent
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOST = 0.01  # of a weight's norm: what float16 may lose of it unasked


class CardScore(NetworkScore):
    r"""A network's score model, with the card that describes it.

    Attributes:
        card: The card.
        classes: The number of labels it knows, or 0.
    """

    card: dict[str, Any]
    classes: int = 0

    def check_condition(self, name: str, value: Tensor) -> None:
        if name == "label" and self.classes:
            check_labels(value, self.classes)


def load(name: str | Path, *, device: torch.device | str | None = None) -> CardScore:
    r"""Returns an embedded model, or the model in a file.

    Arguments:
        name: The name of an embedded model, or a path to a card or to weights, or to a folder
            with one card.
        device: The device. By default, the CPU.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the files are not a model, or damaged.
    """

    card_file, card = open_card(name, EMBEDDED, MODEL)
    tensors, fingerprint = read_weights(card_file)
    with described(card_file):
        check_card(card, MODEL)
        known = take_moments(tensors, card)
        model = CardScore(
            build_network(card, tensors),
            build_process(card["process"]),
            card["predicts"],
            conditions=card["conditions"],
            shape=tuple(card["shape"]) or None,
            data_std=card["data_std"],
        )
    model.moments, model.fingerprint = known, fingerprint
    model.card, model.classes = card, card["network"]["settings"].get("classes", 0)
    return model.requires_grad_(False).to(device or "cpu")


def save(
    model: NetworkScore,
    file: str | Path,
    card: dict[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes a model to `file.safetensors` and `file.json`, which :func:`load` reads again.

    The network must be one of :mod:`scoresde.networks`, and the process one of this package with a schedule
    of this package, since nothing in a file is executed. The network keeps no settings of its own:
    `card["network"]` says them, as `{"name": "UNet", "settings": {...}}`.

    Arguments:
        model: The score model of a network.
        file: The path, without ending.
        card: What the card shall say beside what the model knows.
        dtype: The dtype of the weights. By default float16, and float32 for those that float16 cannot hold
            within a hundredth. A model whose numbers must stay what they are wants torch.float32, or
            torch.float64 if its weights are.

    Returns:
        The path of the card.

    Raises:
        TypeError: If the model is not that of a network.
        ValueError: If it could not be loaded again, or a number does not fit into the dtype.
    """

    if not isinstance(model, NetworkScore):
        raise TypeError(
            f"model must be a NetworkScore, whose network has weights to save, but is a {type(model).__name__}; "
            "of a guided or conditioned model, save the model that it is made of."
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
    card: dict[str, Any],
    others: dict[str, Tensor],
    entries: Mapping[str, Entry],
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes the weights of a network, other tensors as they are, and the card, once they can be read again.

    Arguments:
        network: The network.
        file: The path, without ending.
        card: The card.
        others: The tensors that are no weights.
        entries: What the card must have.
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
    r"""A weight as a file holds it; refused where the dtype has no such number."""

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
    card: dict[str, Any],
    weights: dict[str, Tensor],
    others: dict[str, Tensor],
    entries: Mapping[str, Entry],
) -> None:
    r"""Refuses what could not be loaded again, by loading it."""

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


def read_weights(card_file: Path) -> tuple[dict[str, Tensor], str]:
    r"""Returns the tensors beside a card, and the fingerprint of their file."""

    weights = card_file.with_suffix(".safetensors")
    if not weights.exists():
        raise FileNotFoundError(f"the model {card_file} has no weights: {weights} is missing.")
    try:
        return load_file(weights), hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{weights} is not a safetensors file, or is truncated ({error}); get it anew."
        ) from None


@contextmanager
def described(card_file: Path) -> Iterator[None]:
    r"""Says of what goes wrong inside that the card does not describe a model."""

    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        words = str(error).splitlines()[0].removesuffix(".")
        raise ValueError(
            f"{card_file} does not describe a model of this package: {words}."
        ) from None


def open_card(
    name: str | Path, folder: Path, needed: Mapping[str, Entry]
) -> tuple[Path, dict[str, Any]]:
    r"""Returns the path of a card, and what it says.

    Arguments:
        name: The name of an embedded model, or a path to a card or to weights, or to a folder with one card.
        folder: Where the embedded ones are.
        needed: The entries that it must have.
    """

    card_file = _find(name, folder)
    return card_file, _read_card(card_file, needed)


def _find(name: str | Path, folder: Path) -> Path:
    path, names = Path(name), sorted(card.stem for card in folder.glob("*.json"))
    if str(name) in names:
        return folder / f"{name}.json"
    if path.is_dir():
        cards = sorted(path.glob("*.json"))
        if len(cards) == 1:
            return cards[0]
        raise FileNotFoundError(
            f"the folder {path} must hold one card (*.json), not {len(cards)}."
        )
    if path.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".bin"):
        raise ValueError(
            f"{path} is a pickle, which may run code when it is opened; load its weights in Python, and "
            "wrap your network in ss.NetworkScore. Files hold networks of this package alone."
        )
    for card in (path, path.with_suffix(".json"), Path(f"{path}.json")):
        if card.suffix == ".json" and card.exists():
            return card
    if path.exists():
        raise ValueError(f"{path} has no card beside it: {path.with_suffix('.json')} is missing.")
    raise FileNotFoundError(
        f"there is no model {str(name)!r}: it is neither embedded ({', '.join(names) or 'none'}) nor a file."
    )


def _read_card(file: Path, needed: Mapping[str, Entry]) -> dict[str, Any]:
    try:
        card = json.loads(file.read_text())
    except (ValueError, RecursionError):  # of text that is no JSON, or nested without end
        raise ValueError(f"{file} is not a model card: it is not JSON text.") from None
    known = set(card) if isinstance(card, dict) else set()
    missing = [name for name, entry in needed.items() if entry.needed and name not in known]
    if missing:
        raise ValueError(f"{file} is not a model card: it lacks {', '.join(sorted(missing))}.")
    return card  # type: ignore[no-any-return]
