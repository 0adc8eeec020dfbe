r"""Models of embedded symbols in cards: the network of logits, and the learned vectors beside its weights."""

import torch
from torch import Tensor

from ..files import Entry, Json, check_entries
from ..models.transforms import Transform
from ..symbols.embedding import LARGEST, WIDEST, Embedding
from ..symbols.score import EmbeddedScore, Vectors
from .weights import check_numbers

WEIGHT = "symbols:weight"  # of the tensors; no weight of a network has a colon in its name


def _from(least: int, most: int) -> Entry:
    return Entry(
        f"a whole number from {least} to {most}",
        lambda n: isinstance(n, int) and not isinstance(n, bool) and least <= n <= most,
    )


EMBEDDING = {
    "count": _from(2, LARGEST),
    "width": _from(1, WIDEST),
    "evidence": Entry("true or false", lambda value: isinstance(value, bool)),
}


def check_embedding(card: Json) -> None:
    r"""Refuses a card whose entry does not describe learned vectors, or does not go with the others."""

    entry = card["embedding"]
    check_entries(entry, EMBEDDING, "embedding: ")
    if card.get("transform") is not None:
        raise ValueError("'transform' must be null where there is an 'embedding', which is one")
    if card["predicts"] != "data" or (card["shape"] and card["shape"][-1] != entry["width"]):
        raise ValueError(
            f"embedding: 'predicts' must be 'data', and the last size of 'shape' {entry['width']}, but they are "
            f"{card['predicts']!r} and {card['shape']}"
        )


def described_embedding(model: object) -> tuple[Json | None, dict[str, Tensor]]:
    r"""Returns the learned vectors of a model as plain data and tensors, if it has some."""

    if not isinstance(model, EmbeddedScore):
        return None, {}
    embedding = model.embedding
    entry = {"count": embedding.count, "width": embedding.width, "evidence": model.evidence}
    return entry, {WEIGHT: embedding.weight}


def transform_of(model: object) -> Transform | None:
    r"""Returns the transform of a model, if it is not one of its own vectors."""

    transform: Transform | None = getattr(model, "transform", None)
    own = isinstance(model, EmbeddedScore) and type(transform) is Vectors
    return None if own else transform


def take_embedding(tensors: dict[str, Tensor], entry: Json | None) -> Embedding | None:
    r"""Removes the learned vectors from the tensors of a file, and returns them, if there are any."""

    weight = tensors.pop(WEIGHT, None)
    if entry is None and weight is None:
        return None
    wanted = None if entry is None else (entry["count"], entry["width"])
    if entry is None or weight is None or tuple(weight.shape) != wanted:
        found = "no tensor" if weight is None else tuple(weight.shape)
        raise ValueError(f"embedding: its vectors must have shape {wanted}, but have {found}")
    if not weight.is_floating_point():
        raise ValueError(f"embedding: its vectors must hold real numbers, not {weight.dtype}")
    check_numbers("embedding: its vectors", weight)
    embedding = Embedding(*weight.shape)
    exact = weight.double() if weight.dtype == torch.float64 else weight.float()
    embedding.weight = torch.nn.Parameter(exact)
    return embedding
