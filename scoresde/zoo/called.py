r"""The calling conventions of foreign networks in cards: time label, argument order, names, constants."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..adapters.foreign import Foreign, Label
from ..adapters.pipelines import Packed
from ..files import Entry, Json, check_entries, each, finite, mapping, or_none, shortened, text
from ..models.compiled import as_written
from ..models.conditions import Bound
from ..processes.process import Process
from .constructors import is_plain

NULL = "null."  # before the names of tensors that stand for no condition
LABEL = {
    "of": Entry(
        "'t', 'noise_level' or 'log_noise_level'",
        lambda of: of in ("t", "noise_level", "log_noise_level"),
    ),
    "factor": Entry("a finite number", finite),
    "offset": Entry("a finite number", finite),
}
CALLED = {
    "label": Entry("its 'of', 'factor' and 'offset', or null", or_none(mapping)),
    "order": Entry("'x, t' or 't, x'", lambda order: order in ("x, t", "t, x")),
    "names": Entry(
        "two names, or null",
        or_none(lambda names: isinstance(names, list) and len(names) == 2 and each(text)(names)),
    ),
    "entry": Entry(
        "a name or a whole number, or null",
        or_none(lambda e: text(e) or (isinstance(e, int) and not isinstance(e, bool))),
    ),
    "factor": Entry("a finite number", finite),
    "constants": Entry("plain values by name", lambda c: mapping(c) and is_plain(c)),
    "opened": Entry("names", lambda names: isinstance(names, list) and each(text)(names)),
    "packed": Entry("true or false", lambda packed: isinstance(packed, bool)),
}


def described_call(foreign: Foreign) -> tuple[nn.Module, Json, dict[str, Tensor]]:
    r"""Returns the inner network, its calling convention as plain data, and the values for no condition by name.

    Raises:
        ValueError: If it holds code: a function as label or network, or constants that are not plain data.
    """

    network = foreign.network
    packed = isinstance(network, Packed)
    inner = as_written(network.network if isinstance(network, Packed) else network)
    if not isinstance(inner, nn.Module):
        raise ValueError(
            f"only networks that are modules have weights to save, but this is {shortened(inner)}."
        )
    if foreign.label is not None and not isinstance(foreign.label, Label):
        raise ValueError(
            "the time label is a function, which files do not hold; pass an ss.Label instead, such as "
            'ss.Label("t", 999).'
        )
    if not is_plain(foreign.constants):
        raise ValueError(
            f"constants must be numbers, texts and lists of them, to be saved, but are "
            f"{shortened(foreign.constants)}."
        )
    call = {
        "label": None if foreign.label is None else dataclasses.asdict(foreign.label),
        "order": foreign.order,
        "names": None if foreign.names is None else list(foreign.names),
        "entry": foreign.entry,
        "factor": foreign.factor,
        "constants": foreign.constants,
        "opened": list(foreign.opened),
        "packed": packed,
    }
    return inner, call, dict(_flat(NULL, foreign.null))


def check_call(call: object) -> None:
    r"""Refuses an entry that is not a calling convention."""

    check_entries(call, CALLED, "network: called: ")
    label = call["label"]  # type: ignore[index]
    if label is not None:
        check_entries(label, LABEL, "network: called: label: ")


def called(network: nn.Module, process: Process, call: Json, null: Mapping[str, Bound]) -> Foreign:
    r"""Returns a network with a calling convention from a card."""

    return Foreign(
        Packed(network) if call["packed"] else network,
        process,
        None if call["label"] is None else Label(**call["label"]),
        call["order"],
        names=None if call["names"] is None else tuple(call["names"]),
        entry=call["entry"],
        factor=call["factor"],
        constants=call["constants"],
        null=null,
        opened=call["opened"],
    )


def take_null(tensors: dict[str, Tensor]) -> dict[str, Bound]:
    r"""Removes the values for no condition from the tensors of a file, and returns them."""

    found: dict[str, Any] = {}
    for name in [name for name in tensors if name.startswith(NULL)]:
        *above, last = name.removeprefix(NULL).split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ValueError(f"{name!r} is both a tensor and a dictionary of tensors")
        if isinstance(place.get(last), dict):
            raise ValueError(f"{name!r} is both a tensor and a dictionary of tensors")
        place[last] = tensors.pop(name)
        if not place[last].ndim or len(place[last]) != 1:
            raise ValueError(
                f"{name!r} must have leading size 1, but has {tuple(place[last].shape)}"
            )
    return found


def _flat(prefix: str, values: Mapping[str, Bound]) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in values.items():
        if isinstance(value, Tensor) and "." not in name:
            found.append((prefix + name, value.detach().cpu().contiguous().clone()))
        elif isinstance(value, Mapping) and "." not in name:
            found += _flat(f"{prefix}{name}.", value)
        else:
            raise ValueError(
                f"null must hold tensors, or dictionaries of them, to be saved, but {name!r} does not."
            )
    return found
