r"""Loading and saving of models. Nothing in a file is executed.

A model consists of two files with the same name: `NAME.safetensors` holds the weights, and the moments of the
data if they are known, and `NAME.json`, its card, describes them: network, process, prediction type, data,
licence, measurements. The card names networks, processes and schedules of this package, and their settings are
plain numbers.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_device

from ..files import Entry, Json
from ..models.network import NetworkScore
from ..oracles.mixture import check_labels
from .build import MODEL, build_network, build_process, check_card, take_moments

EMBEDDED = Path(__file__).parent


class CardScore(NetworkScore):
    r"""A network's score model with the card that describes it.

    Attributes:
        card: The card.
        classes: The number of its labels, or 0.
    """

    card: Json
    classes: int = 0

    def check_condition(self, name: str, value: Tensor) -> None:
        if name == "label" and self.classes:
            check_labels(value, self.classes)


@checked
def load(name: str | Path, *, device: torch.device | str | None = None) -> CardScore:
    r"""Returns an embedded model, or the model in a file.

    Arguments:
        name: The name of an embedded model, or a path to a card, to weights, or to a folder with one card.
        device: The device. By default, the CPU.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the files are not a model, or are damaged.

    Examples:
        >>> digits = ss.load("digits")
        >>> digits.shape, digits.conditions
        ((1, 8, 8), ('label',))
    """

    device = as_device("device", device)
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
            data_scale=card.get("data_scale"),
        )
    model.moments, model.fingerprint = known, fingerprint
    model.card, model.classes = card, card["network"]["settings"].get("classes", 0)
    return model.requires_grad_(False).to(device or "cpu")


def read_weights(card_file: Path) -> tuple[dict[str, Tensor], str]:
    r"""Returns the tensors that belong to a card, and the fingerprint of their file."""

    weights = card_file.with_suffix(".safetensors")
    if not weights.exists():
        raise FileNotFoundError(f"the model {card_file} has no weights: {weights} is missing.")
    try:
        return load_file(weights), hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{weights} is not a safetensors file, or is truncated ({error}); download or save it again."
        ) from None


@contextmanager
def described(card_file: Path) -> Iterator[None]:
    r"""Turns errors in its block into one that says that the card does not describe a model."""

    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        words = str(error).splitlines()[0].removesuffix(".")
        raise ValueError(
            f"{card_file} does not describe a model of this package: {words}."
        ) from None


def open_card(name: str | Path, folder: Path, needed: Mapping[str, Entry]) -> tuple[Path, Json]:
    r"""Returns the path of a card, and its content.

    Arguments:
        name: The name of an embedded model, or a path to a card, to weights, or to a folder with one card.
        folder: The folder of the embedded models.
        needed: The required entries.
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
            "wrap your network in ss.NetworkScore. Files hold only networks of this package."
        )
    for card in (path, path.with_suffix(".json"), Path(f"{path}.json")):
        if card.suffix == ".json" and card.exists():
            return card
    if path.exists():
        raise ValueError(f"{path} has no card beside it: {path.with_suffix('.json')} is missing.")
    raise FileNotFoundError(
        f"there is no model {str(name)!r}: it is neither embedded ({', '.join(names) or 'none'}) nor a file."
    )


def _read_card(file: Path, needed: Mapping[str, Entry]) -> Json:
    try:
        card = json.loads(file.read_text())
    except (ValueError, RecursionError):  # of text that is not JSON, or nested too deeply
        raise ValueError(f"{file} is not a model card: it is not JSON text.") from None
    known = set(card) if isinstance(card, dict) else set()
    missing = [name for name, entry in needed.items() if entry.needed and name not in known]
    if missing:
        raise ValueError(f"{file} is not a model card: it lacks {', '.join(sorted(missing))}.")
    return card  # type: ignore[no-any-return]
