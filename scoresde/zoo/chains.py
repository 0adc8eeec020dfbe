r"""Models of chains of symbols, in files like those of score models."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..chains import Absorbing, Chain, ChainModel, Linear, Uniform
from ..chains.model import Predicts
from ..files import Entry, Json, check_entries, finite, mapping, or_none, text
from ..models.compiled import as_written
from .build import MODEL, check_card
from .processes import SCHEDULES, STANDARD
from .weights import build_network

PREDICTS = get_args(Predicts)
KINDS: dict[str, Callable[..., Chain]] = {"Absorbing": Absorbing, "Uniform": Uniform}
OF_CHAINS = {**SCHEDULES, "Linear": Linear}
CHAIN = {
    "network": MODEL["network"],
    "chain": Entry("its name, vocabulary, schedule, settings, t_min and t_max", mapping),
    "predicts": Entry(
        f"one of {', '.join(PREDICTS)}", lambda name: text(name) and name in PREDICTS
    ),
    "length": Entry(
        "a positive whole number, or null",
        or_none(lambda n: isinstance(n, int) and not isinstance(n, bool) and n > 0),
    ),
    "conditions": MODEL["conditions"],
}
KIND = {
    "name": Entry(f"one of {', '.join(KINDS)}", lambda name: text(name) and name in KINDS),
    "vocabulary": Entry(
        "a whole number", lambda n: isinstance(n, int) and not isinstance(n, bool)
    ),
    "schedule": Entry(
        f"one of {', '.join(OF_CHAINS)}", lambda name: text(name) and name in OF_CHAINS
    ),
    "settings": STANDARD["settings"],
    "t_min": Entry("a finite number", finite),
    "t_max": Entry("a finite number", finite),
}


def described_chain(model: ChainModel) -> Json:
    r"""Returns all of a model but its weights as plain data.

    Raises:
        TypeError, ValueError: If it has no network that settings make, or its chain is not of this package.
    """

    chain = model.chain
    if model.bound:
        raise ValueError(
            f"model has the conditions {', '.join(model.bound)} bound, which files do not hold; save the model "
            "without."
        )
    if not isinstance(as_written(model.network), nn.Module):
        raise TypeError(
            f"model must have a network with weights to be saved, but is {model!r} of a function; save what it is "
            "made of."
        )
    if type(chain).__name__ not in KINDS or type(chain.schedule) not in OF_CHAINS.values():
        raise ValueError(
            f"model must have a chain with a schedule of this package to be saved, but has {chain}."
        )
    schedule: Any = chain.schedule
    entry = {
        "name": type(chain).__name__,
        "vocabulary": chain.vocabulary,
        "schedule": type(schedule).__name__,
        "settings": dataclasses.asdict(schedule),
        "t_min": chain.t_min,
        "t_max": chain.t_max,
    }
    return {
        "chain": entry,
        "predicts": model.predicts,
        "length": model.length,
        "conditions": list(model.conditions),
    }


def build_chain(
    card: Json, tensors: Mapping[str, Tensor], trust: bool, dtype: torch.dtype | None
) -> ChainModel:
    r"""Returns the model of a chain that a card describes.

    Arguments:
        card: The card, whose entries are checked.
        tensors: The weights of the network.
        trust: Whether a network that is not registered is imported and called.
        dtype: The dtype of the weights, as in :func:`scoresde.load`.
    """

    check_card(card, CHAIN)
    entry = card["chain"]
    check_entries(entry, KIND, "chain: ")
    schedule = OF_CHAINS[entry["schedule"]](**entry["settings"])
    chain = KINDS[entry["name"]](entry["vocabulary"], schedule, entry["t_min"], entry["t_max"])
    return ChainModel(
        build_network(card, tensors, trust, dtype),
        chain,
        card["predicts"],
        length=card["length"],
        conditions=card["conditions"],
    )
