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
from ..models.data_moments import Moments
from ..models.learned import LEARNED
from ..models.predictions import PREDICTIONS
from ..models.score_model import ScoreModel
from ..models.transforms import Transform
from ..processes.process import Process
from .called import called, check_call, take_null
from .constructors import built, computes_when_built, constructor_of, is_name, is_plain
from .processes import check_process_entry
from .transforms import check_transform, in_form

PREFIX = "moments."  # of the tensors that are not weights
DATA_STD = (1e-10, 1e10)  # beyond these, squares (with the noise's) leave float32
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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
    if card.get("moments") is not None:
        check_entries(card["moments"], REST, "moments: ")


def build_network(
    card: Json,
    tensors: Mapping[str, Tensor],
    trust: bool = False,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    r"""Returns the network that a card names, with its weights.

    It is first built without memory, and no larger than the weights.

    Arguments:
        card: The card.
        tensors: The weights.
        trust: Whether a constructor that is not registered is imported and called.
        dtype: The dtype of the weights. By default, float64 if the file holds it, otherwise float32.

    Raises:
        ValueError: If network and weights do not match, or a weight is not finite in this dtype.
    """

    name, settings = card["network"]["name"], card["network"]["settings"]
    make = constructor_of(name, trust)
    network = built(name, make, settings, len(tensors))
    wanted = network.state_dict()
    for key in [*wanted, *tensors]:
        where = "its card" if key not in wanted else "its file"
        if key not in wanted or key not in tensors:
            raise ValueError(f"the weight {key!r} of {name} with {settings} is not in {where}")
        _check_weight(key, tensors[key], wanted[key])
    if dtype is None:
        wide = any(value.dtype == torch.float64 for value in tensors.values())
        dtype = torch.float64 if wide else torch.float32
    ready = {
        key: in_dtype(f"the weight {key!r}", value, dtype)
        if value.is_floating_point()
        else value.to(wanted[key].dtype, copy=True)
        for key, value in tensors.items()
    }
    if computes_when_built(network):
        network = nn.Module.to(make(**settings), dtype)  # past what classes add to `to`
    network.load_state_dict(ready, assign=True)
    return network.eval()


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


def _check_weight(key: str, value: Tensor, wanted: Tensor) -> None:
    if value.shape != wanted.shape:
        shapes = f"{tuple(value.shape)}, not {tuple(wanted.shape)}"
        raise ValueError(
            f"the weight {key!r} must have the shape of the network, but has {shapes}"
        )
    if value.is_floating_point() != wanted.is_floating_point():
        kind = "floating-point" if wanted.is_floating_point() else "whole"
        raise ValueError(f"the weight {key!r} must hold {kind} numbers, but holds {value.dtype}")
    check_numbers(f"the weight {key!r}", value)


def check_dtype(dtype: torch.dtype | None) -> None:
    r"""Refuses a dtype that weights cannot have."""

    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, but is {dtype}.")


def in_dtype(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Returns a copy of a finite tensor in a dtype that can hold it."""

    found = value.to(dtype, copy=True)
    if not bool(found.isfinite().all()):
        raise ValueError(
            f"{name} goes to {value.abs().max():.3g}, beyond {dtype}; pass dtype=torch.float32 or wider, or leave "
            "it out."
        )
    return found


def check_numbers(name: str, value: Tensor) -> None:
    r"""Refuses a tensor with complex, infinite or NaN entries."""

    if value.is_complex():
        raise ValueError(f"{name} must hold real numbers, but holds {value.dtype}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinite numbers")


def described_moments(model: ScoreModel) -> tuple[Json | None, dict[str, Tensor]]:
    r"""Returns the moments of a model's data as plain data and tensors."""

    known = model.moments
    if known is None:
        return None, {}
    values = {name: getattr(known, name) for name in ("mean", "basis", "variances")}
    return {"rest": known.rest}, {
        PREFIX + name: value.detach().cpu().float().contiguous()
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
    return Moments(mean, basis, variances, card["moments"]["rest"])
