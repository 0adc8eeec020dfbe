r"""Loading and saving of models. Nothing in a file is executed.

A model consists of two files with the same name: `NAME.safetensors` holds the weights, and the moments of the
data, the table of the process and the numbers of the transform if there are any, and `NAME.json`, its card,
describes them: network, process, prediction type, data, licence, measurements. The card names networks, exact
models, processes and schedules of this package, and their settings are plain numbers. It may name classes of
others by their import path, which are imported only for users who trust the file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.doors.values import as_device

from ..adapters.diffusers import from_diffusers
from ..adapters.folders import is_folder
from ..adapters.weights import damaged
from ..chains import ChainModel
from ..files import Entry, Json
from ..models.latent import Latent
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..oracles.known_data import check_labels
from ..processes.process import Process
from ..symbols.embedding import Embedding
from ..symbols.score import EmbeddedScore
from .build import MODEL, build_called, check_card, take_moments
from .chains import CHAIN, build_chain
from .classes import CLASS, build_class, check_kind
from .embedded import take_embedding
from .experts import EXPERTS, KIND, joined, part_files
from .processes import take_process
from .transforms import take_transform
from .weights import check_dtype

EMBEDDED = Path(__file__).parent
OTHERS = {"model": CLASS, KIND: EXPERTS, "chain": CHAIN}  # other cards, by the entry that tells


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


class CardWords(CardScore, EmbeddedScore):
    r"""A score model of embedded symbols with the card that describes it."""


@checked
def load(
    name: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    trust: bool = False,
) -> ScoreModel:
    r"""Returns an embedded model, or the model in a file or folder.

    Nothing in it is executed: cards may name networks of :mod:`scoresde.networks`, diffusers classes, and
    constructors registered by :func:`scoresde.register_network`.

    Arguments:
        name: The name of an embedded model, or a path to a card, to weights, or to a folder with one card; or a
            folder of a pipeline that `save_pretrained` of diffusers wrote, as for :func:`scoresde.from_diffusers`.
        device: The device. By default, the CPU.
        dtype: The dtype of the weights: torch.float64, float32, bfloat16 or float16. By default, float64 for files
            that hold it, and float32 for all others.
        trust: Whether to import a network, process or model that is not registered by the path in the card, which
            executes its code. Pass `True` only for files that you trust.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the files are not a model, or damaged, or name code without `trust`, or a weight does not
            fit into the dtype.

    Examples:
        >>> digits = ss.load("digits")
        >>> digits.shape, digits.conditions
        ((1, 8, 8), ('label',))
        >>> next(ss.load("digits", dtype=torch.float64).parameters()).dtype
        torch.float64
    """

    path, device = Path(name), as_device("device", device)
    check_dtype(dtype)
    if not (EMBEDDED / f"{name}.json").exists() and path.is_dir() and is_folder(path):
        model = from_diffusers(path).requires_grad_(False)
        return model.to(device or "cpu").to(dtype)
    card_file, card = open_card(name, EMBEDDED, MODEL, OTHERS)
    if "chain" in card:
        raise ValueError(
            f"{card_file} holds a model of a chain of symbols, which has verbs of its own; load it in Python by "
            "ss.load_chain."
        )
    if "network" in card:
        return load_card(name, device, trust, dtype)
    if KIND in card:
        return _load_experts(card_file, card, device, trust, dtype)
    tensors, fingerprint = read_weights(card_file)
    with described(card_file):
        check_card(card, CLASS)
        check_kind(card["model"])
        fingerprint = _in_words(fingerprint, tensors, dtype)
        made = build_class(card, tensors, trust, dtype)
    made.fingerprint, made.card = fingerprint, card  # type: ignore[assignment]
    return _placed(made, device)


def _load_experts(
    card_file: Path,
    card: Json,
    device: torch.device | None,
    trust: bool,
    dtype: torch.dtype | None,
) -> ScoreModel:
    with described(card_file):
        check_card(card, EXPERTS)
    files = part_files(card_file, len(card[KIND]) + 1)
    parts = [load(file, device=device, trust=trust, dtype=dtype) for file in files]
    with described(card_file):
        return joined(parts, card)


def load_card(
    name: str | Path,
    device: torch.device | str | None = None,
    trust: bool = False,
    dtype: torch.dtype | None = None,
) -> CardScore:
    r"""Returns the network of an embedded model, or that of a card."""

    card_file, card = open_card(name, EMBEDDED, MODEL)
    tensors, fingerprint = read_weights(card_file)
    with described(card_file):
        check_card(card, MODEL)
        fingerprint = _in_words(fingerprint, tensors, dtype)
        known, process = take_moments(tensors, card), take_process(tensors, card["process"], trust)
        transform = take_transform(tensors, card.get("transform"), card["shape"], trust)
        embedding = take_embedding(tensors, card.get("embedding"))
        network = build_called(card, tensors, process, transform, trust, dtype)
        model = _scored(card, network, process, embedding)
    model.moments, model.fingerprint = known, fingerprint
    if embedding is None:
        model.transform = transform
    model.card, model.classes = card, card["network"]["settings"].get("classes", 0)
    return _placed(model, device)


def _scored(
    card: Json, network: nn.Module, process: Process, embedding: Embedding | None
) -> CardScore:
    r"""The score model of a network, as a card says."""

    shape, learned = tuple(card["shape"]), card.get("learned", "score")
    if embedding is None:
        return CardScore(
            network,
            process,
            card["predicts"],
            conditions=card["conditions"],
            shape=shape or None,
            data_std=card["data_std"],
            data_scale=card.get("data_scale"),
            learned=learned,
        )
    weight = next(network.parameters(), embedding.weight)
    model = CardWords(
        network,
        embedding.to(weight.dtype),
        process,
        conditions=card["conditions"],
        shape=shape[:-1] or None,
        evidence=card["embedding"]["evidence"],
    )
    model.learned = learned
    return model


@checked
def load_chain(
    name: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    trust: bool = False,
) -> ChainModel:
    r"""Returns the model of a chain of symbols in a file, which :func:`scoresde.save` wrote.

    Arguments:
        name: A path to a card, to weights, or to a folder with one card.
        device: The device. By default, the CPU.
        dtype: The dtype of the weights, as for :func:`scoresde.load`.
        trust: Whether to import a network that is not registered, as for :func:`scoresde.load`.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the files are not the model of a chain, or damaged, or name code without `trust`.

    Examples:
        >>> class Letters(torch.nn.Embedding):  # logits of each symbol from what is shown at its place
        ...     def forward(self, x, t):
        ...         return super().forward(x)
        >>> _ = ss.register_network(Letters)
        >>> network = Letters(4, 3)
        >>> model = ss.chains.ChainModel(network, ss.chains.Absorbing(3), "symbols", length=8)
        >>> settings = {"num_embeddings": 4, "embedding_dim": 3}
        >>> ss.load_chain(ss.save(model, folder / "letters", {"network": {"settings": settings}}))
        ChainModel(Absorbing(vocabulary=3, schedule=Linear(), t_min=0.0, t_max=1.0), predicts='symbols')
    """

    device = as_device("device", device)
    check_dtype(dtype)
    card_file, card = open_card(name, EMBEDDED, CHAIN)
    tensors, _ = read_weights(card_file)
    with described(card_file):
        model = build_chain(card, tensors, trust, dtype)
    return model.requires_grad_(False).to(device or "cpu")


M = TypeVar("M", bound=ScoreModel)


def _placed(model: M, device: torch.device | str | None) -> M:
    r"""The model on a device, with the autoencoder of its latent space."""

    if isinstance(model.transform, Latent):
        model.transform.autoencoder.to(device or "cpu")
    return model.requires_grad_(False).to(device or "cpu")


def read_weights(card_file: Path) -> tuple[dict[str, Tensor], str]:
    r"""Returns the tensors that belong to a card, and the fingerprint of their file."""

    weights = card_file.with_suffix(".safetensors")
    if not weights.exists():
        raise FileNotFoundError(f"the model {card_file} has no weights: {weights} is missing.")
    try:
        return load_file(weights), hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    except (SafetensorError, OSError) as error:
        raise ValueError(damaged(weights, error)) from None


def _in_words(fingerprint: str, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> str:
    r"""The fingerprint of a file's model, with the dtype of its weights if this rounds them."""

    kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
    exact = dtype is None or all(torch.promote_types(kind, dtype) == dtype for kind in kinds)
    return fingerprint if exact else f"{fingerprint} in {str(dtype).removeprefix('torch.')}"


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


def open_card(
    name: str | Path,
    folder: Path,
    needed: Mapping[str, Entry],
    others: Mapping[str, Mapping[str, Entry]] = {},
) -> tuple[Path, Json]:
    r"""Returns the path of a card, and its content.

    Arguments:
        name: The name of an embedded model, or a path to a card, to weights, or to a folder with one card.
        folder: The folder of the embedded models.
        needed: The required entries.
        others: Those of cards of other kinds, by the entry that only they have.
    """

    card_file = _find(name, folder)
    card = _read_card(card_file)
    entries = next((found for kind, found in others.items() if kind in card), needed)
    missing = [name for name, entry in entries.items() if entry.needed and name not in card]
    if missing:
        raise ValueError(
            f"{card_file} is not a model card: it lacks {', '.join(sorted(missing))}."
        )
    return card_file, card


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
            "wrap your network in ss.NetworkScore."
        )
    for card in (path, path.with_suffix(".json"), Path(f"{path}.json")):
        if card.suffix == ".json" and card.exists():
            return card
    if path.exists():
        raise ValueError(f"{path} has no card beside it: {path.with_suffix('.json')} is missing.")
    raise FileNotFoundError(
        f"there is no model {str(name)!r}: it is neither embedded ({', '.join(names) or 'none'}) nor a file."
    )


def _read_card(file: Path) -> Json:
    try:
        card = json.loads(file.read_text())
    except (ValueError, RecursionError):  # of text that is not JSON, or nested too deeply
        raise ValueError(f"{file} is not a model card: it is not JSON text.") from None
    return card if isinstance(card, dict) else {}
