r"""Loading and saving models. Nothing in a file is executed.

A model is two files of one name: `NAME.safetensors` holds the weights, and the moments of the data if
they are known, and `NAME.json`, its card,
says what they are: network, process, what is predicted, data, licence, measurements. The card names
networks, processes and schedules of this package, and their settings are plain numbers.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import networks, processes, schedules
from ..moments import Moments
from ..network_score import NetworkScore
from ..oracles import check_labels
from ..process import Process

EMBEDDED = Path(__file__).parent
PREFIX = "moments."  # of the tensors that are no weights
NAMES = tuple(sorted(card.stem for card in EMBEDDED.glob("*.json")))


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

    card_file = _find(name)
    card = _read_card(card_file)
    weights = card_file.with_suffix(".safetensors")
    if not weights.exists():
        raise FileNotFoundError(f"the model {card_file} has no weights: {weights} is missing.")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{weights} is not a safetensors file, or is truncated ({error}); get it anew."
        ) from None
    try:
        network = getattr(networks, card["network"]["name"])(**card["network"]["settings"])
        known = _take_moments(tensors, card)
        network.float().load_state_dict({k: v.float() for k, v in tensors.items()})
        process = build_process(card["process"])
        model = CardScore(
            network.eval(),
            process,
            card["predicts"],
            conditions=card["conditions"],
            shape=tuple(card["shape"]),
            data_std=card["data_std"],
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{card_file} does not describe a model of this package: {error}."
        ) from None
    model.moments = known
    model.card, model.classes = card, card["network"]["settings"].get("classes", 0)
    model.fingerprint = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
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

    file, card = Path(file), dict(card or getattr(model, "card", {}))
    if "network" not in card:
        raise ValueError("card must have the entry 'network' with its name and settings.")
    assert isinstance(model.network, torch.nn.Module)
    card |= {
        "process": describe_process(model.process),
        "predicts": model.predicts,
        "conditions": list(model.conditions),
        "shape": list(model.shape or ()),
        "data_std": model.data_std,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: v.half().contiguous() for name, v in model.network.state_dict().items()}
    if model.moments is not None:
        card["moments"] = {"rest": model.moments.rest}
        for name in ("mean", "basis", "variances"):
            value = getattr(model.moments, name)
            if value is not None:
                tensors[PREFIX + name] = value.float().contiguous()
    save_file(tensors, file.with_suffix(".safetensors"))
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    return file.with_suffix(".json")


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


def _find(name: str | Path) -> Path:
    path = Path(name)
    if str(name) in NAMES:
        return EMBEDDED / f"{name}.json"
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
        f"there is no model {str(name)!r}: it is neither embedded ({', '.join(NAMES) or 'none'}) nor a file."
    )


def _read_card(file: Path) -> dict[str, Any]:
    try:
        card = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{file} is not a model card: it is not JSON text.") from None
    needed = {"network", "process", "predicts", "conditions", "shape", "data_std"}
    if not isinstance(card, dict) or needed - set(card):
        missing = ", ".join(sorted(needed - set(card))) if isinstance(card, dict) else "all"
        raise ValueError(f"{file} is not a model card: it lacks {missing}.")
    return card
