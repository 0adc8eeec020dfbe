r"""Networks, processes and moments from cards and weights, whose entries are all checked before use.

A file may hold anything. No network is built larger than the weights that came with its card, and refusals name
the entry.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import networks
from ..files import (
    Entry,
    Json,
    check_entries,
    each,
    finite,
    mapping,
    or_none,
    text,
    whole,
)
from ..models.curves import NAMES as CURVES
from ..models.curves import Curves
from ..models.data_moments import Moments
from ..models.learned import LEARNED
from ..models.predictions import PREDICTIONS
from ..models.score_model import ScoreModel
from ..models.transforms import Transform
from ..processes.process import Process
from .called import called, check_call, take_null
from .constructors import is_name, is_plain
from .embedded import check_embedding
from .processes import check_process_entry
from .transforms import check_transform, in_form
from .weights import build_network

PREFIX = "moments."  # of the tensors that are not weights
DATA_STD = (1e-10, 1e10)  # beyond these, squares (with the noise's) leave float32
NETWORK = {
    "name": Entry(f"one of {', '.join(networks.__all__)}, or of others by module:name", is_name),
    "settings": Entry("plain settings by name", lambda s: mapping(s) and is_plain(s)),
    "called": Entry("how it is called", mapping, needed=False),
    "form": Entry(
        "whether it takes the form of the transform", lambda b: isinstance(b, bool), needed=False
    ),
}
SCALE = Entry(
    "a number from {:g} to {:g}".format(*DATA_STD),
    lambda value: finite(value) and DATA_STD[0] <= value <= DATA_STD[1],
)
MODEL = {
    "network": Entry("its name and settings", mapping),
    "process": Entry("its name, schedule, settings, t_min and t_max", mapping),
    "predicts": Entry(
        f"one of {', '.join(PREDICTIONS)}", lambda name: text(name) and name in PREDICTIONS
    ),
    "conditions": Entry(
        "names, each once",
        lambda names: (
            isinstance(names, list) and each(text)(names) and len({*names}) == len(names)
        ),
    ),
    "shape": Entry(
        "positive whole numbers",
        lambda shape: isinstance(shape, list) and each(whole)(shape) and 0 not in shape,
    ),
    "data_std": SCALE,
    "data_scale": SCALE._replace(needed=False),
    "moments": Entry("its 'rest', or null", or_none(mapping), needed=False),
    "learned": Entry(
        f"one of {', '.join(LEARNED)}", lambda name: text(name) and name in LEARNED, needed=False
    ),
    "transform": Entry("its name and shapes, or null", or_none(mapping), needed=False),
    "embedding": Entry("its count, width and evidence, or null", or_none(mapping), needed=False),
}
CLASSIFIER = {
    **{name: MODEL[name] for name in ("network", "process", "data_std")},
    "levels": Entry(
        "two positive noise levels, the lower first",
        lambda levels: (
            isinstance(levels, list)
            and len(levels) == 2
            and each(finite)(levels)
            and 0 < levels[0] <= levels[1]
        ),
    ),
}
REST = {"rest": Entry("a number of at least 0, or null", or_none(lambda v: finite(v) and v >= 0))}


def check_card(card: Json, entries: Mapping[str, Entry]) -> None:
    r"""Refuses a card with a missing or wrong entry; further entries are allowed."""

    check_entries({name: card[name] for name in entries if name in card}, entries)
    if "network" in entries:
        check_entries(card["network"], NETWORK, "network: ")
        if card["network"].get("called") is not None:
            check_call(card["network"]["called"])
    if card.get("process") is not None:
        check_process_entry(card["process"])
    if card.get("transform") is not None:
        check_transform(card["transform"])
    if card.get("embedding") is not None:
        check_embedding(card)
    if card.get("moments") is not None:
        check_entries(card["moments"], REST, "moments: ")


def build_called(
    card: Json,
    tensors: dict[str, Tensor],
    process: Process,
    transform: Transform | None = None,
    trust: bool = False,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    r"""Returns the network of a card, with the calling convention of the card."""

    entry = card["network"]
    call = entry.get("called")
    null = {} if call is None else take_null(tensors)
    network = build_network(card, tensors, trust, dtype)
    if entry.get("form"):
        network = in_form(network, transform)
    return network if call is None else called(network, process, call, null)


def described_moments(model: ScoreModel) -> tuple[Json | None, dict[str, Tensor]]:
    r"""Returns the moments of a model's data as plain data and tensors."""

    known = model.moments
    if known is None:
        return None, {}
    values = {name: getattr(known, name) for name in ("mean", "basis", "variances")}
    values |= {name: getattr(known.curves, name, None) for name in CURVES}
    return {"rest": known.rest}, {
        PREFIX + name: value.detach().cpu().double().contiguous()
        for name, value in values.items()
        if value is not None
    }


def take_moments(tensors: dict[str, Tensor], card: Json) -> Moments | None:
    r"""Removes the moments of the data, if there are any, from the tensors of a file, and returns them."""

    names = [name for name in tensors if name.startswith(PREFIX)]
    found = {name.removeprefix(PREFIX): tensors.pop(name) for name in names}
    if not found:
        return None
    for name in ("mean", "variances"):
        if name not in found:
            raise ValueError(f"the moments have no {name!r}")
    for name, value in found.items():
        if not value.is_floating_point():
            raise ValueError(
                f"the {name!r} of the moments must hold real numbers, but is {value.dtype}"
            )
    if card.get("moments") is None:
        raise ValueError("'moments' must have the 'rest' of the moments in the file")
    if card["shape"] and list(found["mean"].shape) != card["shape"]:
        shape = list(found["mean"].shape)
        raise ValueError(f"the 'mean' of the moments has shape {shape}, not {card['shape']}")
    mean, variances = found["mean"].double(), found["variances"].double()
    basis = found["basis"].double() if "basis" in found else None
    curves = None
    if not found.keys().isdisjoint(CURVES):
        missing = [name for name in CURVES if name not in found]
        if missing:
            raise ValueError(f"the moments have no {missing[0]!r}")
        curves = Curves(*(found[name] for name in CURVES))
    return Moments(mean, basis, variances, card["moments"]["rest"], curves)
