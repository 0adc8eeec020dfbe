r"""Loading and saving models. Nothing in a file is executed.

A model is two files of one name: `NAME.safetensors` holds the weights, and the moments of the data if
they are known, and `NAME.json`, its card,
says what they are: network, process, what is predicted, data, licence, measurements. The card names
networks, processes and schedules of this package, and their settings are plain numbers.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from solvers.doors import as_device

from .. import networks, processes, schedules
from ..moments import Moments
from ..network_score import NetworkScore
from ..oracles import check_labels
from ..process import Process

EMBEDDED = Path(__file__).parent
PREFIX = "moments."  # of the tensors that are no weights
NEEDED = ("network", "process", "predicts", "conditions", "shape", "data_std")


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

    device = as_device("device", device)
    card_file, card = open_card(name, EMBEDDED, NEEDED)
    tensors, fingerprint = read_weights(card_file)
    with described(card_file):
        known = _take_moments(tensors, card)
        model = CardScore(
            build_network(card, tensors),
            build_process(card["process"]),
            card["predicts"],
            conditions=card["conditions"],
            shape=tuple(card["shape"]),
            data_std=card["data_std"],
            data_scale=card.get("data_scale"),
        )
    model.moments, model.fingerprint = known, fingerprint
    model.card, model.classes = card, card["network"]["settings"].get("classes", 0)
    return model.requires_grad_(False).to(device or "cpu")


def save(model: NetworkScore, file: str | Path, card: dict[str, Any] | None = None) -> Path:
    r"""Writes a model to `file.safetensors`, in float16, and `file.json`.

    The network must be one of :mod:`scoresde.networks`, which keeps no settings of its own:
    `card["network"]` says them, as `{"name": ..., "settings": {...}}`.

    Arguments:
        model: The score model of a network.
        file: The path, without ending.
        card: What the card shall say beside what the model knows.

    Returns:
        The path of the card.
    """

    card = {
        **(card or getattr(model, "card", {})),
        "process": describe_process(model.process),
        "predicts": model.predicts,
        "conditions": list(model.conditions),
        "shape": list(model.shape or ()),
        "data_std": model.data_std,
    }
    if model.moments is None and model.data_scale not in (None, model.data_std):
        card["data_scale"] = model.data_scale
    tensors = {}
    if model.moments is not None:
        card["moments"] = {"rest": model.moments.rest}
        for name in ("mean", "basis", "variances"):
            value = getattr(model.moments, name)
            if value is not None:
                tensors[PREFIX + name] = value.float().contiguous()
    return write_model(model.network, Path(file), card, tensors)


def write_model(
    network: object, file: Path, card: dict[str, Any], others: dict[str, Tensor]
) -> Path:
    r"""Writes the weights of a network in float16, other tensors as they are, and the card.

    Arguments:
        network: The network.
        file: The path, without ending.
        card: The card.
        others: The tensors that are no weights.

    Returns:
        The path of the card.
    """

    if "network" not in card:
        raise ValueError("card must have the entry 'network' with its name and settings.")
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"only networks that are modules have weights to save, not {network!r}.")
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: v.half().contiguous() for name, v in network.state_dict().items()}
    save_file({**tensors, **others}, file.with_suffix(".safetensors"))
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    return file.with_suffix(".json")


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
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{card_file} does not describe a model of this package: {error}."
        ) from None


def build_network(card: dict[str, Any], tensors: dict[str, Tensor]) -> torch.nn.Module:
    r"""Returns the network that a card names, with its weights."""

    network = getattr(networks, card["network"]["name"])(**card["network"]["settings"])
    network.float().load_state_dict({k: v.float() for k, v in tensors.items()})
    return network.eval()  # type: ignore[no-any-return]


def _take_moments(tensors: dict[str, Tensor], card: dict[str, Any]) -> Moments | None:
    r"""Takes the moments of the data, if there are any, out of the tensors of a file."""

    names = [name for name in tensors if name.startswith(PREFIX)]
    found = {name.removeprefix(PREFIX): tensors.pop(name).double() for name in names}
    if not found:
        return None
    return Moments(found["mean"], found.get("basis"), found["variances"], card["moments"]["rest"])


def describe_process(process: Process) -> dict[str, Any]:
    r"""Returns a process as plain data."""

    if not isinstance(process, processes.Scheduled):
        raise ValueError(f"only processes with a schedule can be saved, not {process}.")
    return {
        "name": type(process).__name__,
        "schedule": type(process.schedule).__name__,
        "settings": dataclasses.asdict(process.schedule),  # type: ignore[call-overload]
        "t_min": process.t_min,
        "t_max": process.t_max,
    }


def build_process(card: dict[str, Any]) -> Process:
    r"""Returns the process that plain data describes."""

    kinds = {kind.__name__: kind for kind in (
        processes.VP, processes.SubVP, processes.VE, processes.EDM, processes.Interpolant
    )}  # fmt: skip
    choices = {kind.__name__: kind for kind in (
        schedules.LinearBeta, schedules.Cosine, schedules.Geometric, schedules.Karras,
        schedules.Logit,
    )}  # fmt: skip
    schedule = choices[card["schedule"]](**card["settings"])
    return kinds[card["name"]](schedule, card["t_min"], card["t_max"])


def open_card(
    name: str | Path, folder: Path, needed: Collection[str]
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
            f"{path} is a pickle, which may run code when it is opened; load its weights yourself "
            "and write them with ss.save, or wrap your network in ss.NetworkScore."
        )
    for card in (path, path.with_suffix(".json"), Path(f"{path}.json")):
        if card.suffix == ".json" and card.exists():
            return card
    if path.exists():
        raise ValueError(f"{path} has no card beside it: {path.with_suffix('.json')} is missing.")
    raise FileNotFoundError(
        f"there is no model {str(name)!r}: it is neither embedded ({', '.join(names) or 'none'}) nor a file."
    )


def _read_card(file: Path, needed: Collection[str]) -> dict[str, Any]:
    try:
        card = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{file} is not a model card: it is not JSON text.") from None
    missing = ", ".join(sorted(set(needed) - set(card))) if isinstance(card, dict) else "all"
    if missing:
        raise ValueError(f"{file} is not a model card: it lacks {missing}.")
    return card
