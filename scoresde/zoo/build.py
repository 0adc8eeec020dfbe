r"""Networks, processes and moments from cards and weights, whose entries are all checked before use.

A file may hold anything. No network is built larger than the weights that came with its card, and refusals name
the entry.
"""

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .. import networks
from ..files import (
    Entry,
    Json,
    check_entries,
    each,
    finite,
    mapping,
    or_none,
    shortened,
    text,
    whole,
)
from ..models.data_moments import Moments
from ..models.predictions import PREDICTIONS
from ..processes import schedules
from ..processes import standard as processes
from ..processes.process import Process

PREFIX = "moments."  # of the tensors that are not weights
DATA_STD = (1e-10, 1e10)  # beyond these, squares (with the noise's) leave float32
NOISE = 1e12  # the largest scale of the noise; its inverse is the smallest noise level
KINDS = {kind.__name__: kind for kind in (
    processes.VP, processes.SubVP, processes.VE, processes.EDM, processes.Interpolant
)}  # fmt: skip
SCHEDULES = {kind.__name__: kind for kind in (
    schedules.LinearBeta, schedules.Cosine, schedules.Geometric, schedules.Karras, schedules.Logit,
)}  # fmt: skip
NETWORK = {
    "name": Entry(f"one of {', '.join(networks.__all__)}", lambda name: name in networks.__all__),
    "settings": Entry("settings by name", mapping),
}
PROCESS = {
    "name": Entry(f"one of {', '.join(KINDS)}", lambda name: text(name) and name in KINDS),
    "schedule": Entry(
        f"one of {', '.join(SCHEDULES)}", lambda name: text(name) and name in SCHEDULES
    ),
    "settings": Entry("finite numbers by name", lambda s: mapping(s) and each(finite)(s)),
    "t_min": Entry("a finite number", finite),
    "t_max": Entry("a finite number", finite),
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
    check_entries(card["network"], NETWORK, "network: ")
    check_entries(card["process"], PROCESS, "process: ")
    if card.get("moments") is not None:
        check_entries(card["moments"], REST, "moments: ")


def build_network(card: Json, tensors: Mapping[str, Tensor]) -> nn.Module:
    r"""Returns the network that a card names, with its weights, in float32 or float64.

    It is first built without memory, and no larger than the weights.

    Raises:
        ValueError: If network and weights do not match, or a weight is not finite.
    """

    name, settings = card["network"]["name"], card["network"]["settings"]
    with torch.device("meta"), at_most(len(tensors)):
        network: nn.Module = getattr(networks, name)(**settings)
    wanted = network.state_dict()
    for key in [*wanted, *tensors]:
        where = "its card" if key not in wanted else "its file"
        if key not in wanted or key not in tensors:
            raise ValueError(f"the weight {key!r} of {name} with {settings} is not in {where}")
        _check_weight(key, tensors[key], wanted[key])
    wide = any(value.dtype == torch.float64 for value in tensors.values())
    dtype = torch.float64 if wide else torch.float32
    ready = {
        key: value.to(dtype if value.is_floating_point() else wanted[key].dtype, copy=True)
        for key, value in tensors.items()
    }
    network.load_state_dict(ready, assign=True)
    return network.eval()


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


def check_numbers(name: str, value: Tensor) -> None:
    r"""Refuses a tensor with complex, infinite or NaN entries."""

    if value.is_complex():
        raise ValueError(f"{name} must hold real numbers, but holds {value.dtype}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinite numbers")


@contextmanager
def at_most(count: int) -> Iterator[None]:
    r"""Stops the building of a network, in this thread, once it has more than `count` parameters."""

    here, built = threading.get_ident(), 0

    def tally(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal built
        built += threading.get_ident() == here
        if built > count:
            raise ValueError(f"its settings make more weights than the {count} of its file")

    hook = register_module_parameter_registration_hook(tally)
    try:
        yield
    finally:
        hook.remove()


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


def describe_process(process: Process) -> Json:
    r"""Returns a process as plain data."""

    if type(process) not in KINDS.values() or type(process.schedule) not in SCHEDULES.values():  # type: ignore[attr-defined]
        raise ValueError(
            f"only {', '.join(KINDS)} with a schedule of this package can be saved, not {process}; "
            "keep the code that makes it, and the weights as torch saves them."
        )
    assert isinstance(process, processes.Scheduled)
    return {
        "name": type(process).__name__,
        "schedule": type(process.schedule).__name__,
        "settings": dataclasses.asdict(process.schedule),  # type: ignore[call-overload]
        "t_min": process.t_min,
        "t_max": process.t_max,
    }


def build_process(card: Json) -> Process:
    r"""Returns the process described by plain data."""

    kind, schedule = KINDS[card["name"]], SCHEDULES[card["schedule"]]
    process = kind(schedule(**card["settings"]), card["t_min"], card["t_max"])
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    least = torch.exp(-process.log_snr(ends))[0].item()
    most = process.prior_std()
    if not (least >= 1 / NOISE and most <= NOISE):
        raise ValueError(
            f"process: the noise must lie between {1 / NOISE:g} and {NOISE:g}, but its levels go from "
            f"{least:.3g}, and its largest scale is {most:.3g}: {shortened(dict(card))}"
        )
    return process
