r"""From what a user asks to a task: everything is checked here, before a step is taken."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from solvers.doors.values import as_device

from ..doors.warning import warn
from ..files import Json
from ..losses.levels import LogNormal
from ..models.checks import check_shape, device_of
from ..models.learned import as_learned
from ..models.network import NetworkScore
from ..processes.blocks.process import BlockProcess
from ..processes.process import Process
from ..processes.standard import EDM, Interpolant
from ..symbols.score import network_of
from ..zoo import save
from ..zoo.constructors import DIFFUSERS, REGISTERED, name_of
from .batches import Batch, Source
from .card import data_facts, fingerprint, set_moments
from .data import Form, sample_of, source_of, split
from .devices import Launched, Place
from .draws import restored, word
from .folder import check_writable
from .network import (
    around,
    as_network,
    built,
    check_fits,
    check_network,
    check_null,
    check_output,
    classes_of,
    few_of,
    null_of,
    scored,
    with_estimate,
)
from .objective import Drawing, as_loss, check_levels, check_takes
from .options import Coupling, Options, words_of
from .run import CHECKPOINT, Task

LEARNED: dict[str, str] = {"independent": "score", "ot": "flow", "paired": "bridge"}
# From data to data, where the state at the end is the other half itself.
USUAL: dict[str, type[Process]] = {"paired": Interpolant}
DROPPED = 0.1  # of conditions, where the network has a value for none
CENTRE = -0.5  # mean of the log of the noise level, against that of the data's scale
EXACT = torch.float32


@dataclass(frozen=True)
class Asked:
    r"""What a user asks, apart from the options that are numbers.

    Arguments:
        model: The network, score model or name.
        data: The data.
        condition: The conditions of data in memory.
        process: The process, or `None`.
        predicts: The prediction type, or `None`.
        settings: The settings of the network, or `None`.
        loss: The loss, by name or as a function.
        levels: The distribution of noise levels, or `None`.
        coupling: How noise and data are paired.
        learned: What the estimates are, or `None`.
        bins: The number of levels of the data, or `None`.
        low: The lowest value of the data, or `None`.
        high: The highest value of the data, or `None`.
        null: The values for no condition, or `None`.
        validation: The share that is held out, or held-out data.
        out: The folder, or `None`.
        name: The name of the model in it.
        card: More entries of its card.
        device: The device, or `None`.
        accelerate: Whether the devices of `accelerate launch` are used.
    """

    model: object
    data: object
    condition: Mapping[str, object]
    process: Process | None
    predicts: str | None
    settings: Mapping[str, object] | None
    loss: object
    levels: object
    coupling: Coupling
    learned: str | None
    bins: int | None
    low: float | None
    high: float | None
    null: Mapping[str, object] | None
    validation: object
    out: Path | None
    name: str
    card: Json
    device: torch.device | str | None
    accelerate: bool


@dataclass(frozen=True)
class Ready:
    r"""A task, and what the card will say of it.

    Arguments:
        task: The task.
        network: The entry of the network.
        data: The entry of the data.
        learned: What the estimates are afterwards. In training they are means of the data in the pairs that pass
            through a state, for any coupling, so that losses may ask for them.
    """

    task: Task
    network: Json
    data: dict[str, object]
    learned: str


def prepared(asked: Asked, options: Options, dropped: float | None) -> Ready:
    r"""Returns the task, after all checks.

    Arguments:
        asked: What the user asks.
        options: The options.
        dropped: The share of dropped conditions, if the user said one.
    """

    network, given, name = as_network(asked.model)
    form = Form(asked.bins, asked.low, asked.high, None if given is None else given.transform)
    source, form, words = source_of(asked.data, asked.condition, form)
    source, held = split(source, asked.validation, form, options.seed)
    some = sample_of(source, form, options.batch_size)
    _check_pairs(asked.coupling, some, asked.process)
    _check_held(held, some)
    _check_effect(asked, options, held)
    if given is None:
        network, entry = _network(asked, network, name, some, options.seed)
        model = scored(
            network, asked.process or USUAL.get(asked.coupling, EDM)(), asked.predicts, some
        )
    else:
        model, entry = _given(asked, given, some), _entry_of(asked, given)
    check_fits(model, some)
    if held is not None:
        check_fits(model, held)
    few = with_estimate(model, few_of(some, model))
    check_network(model, few)
    check_output(model, few)
    null, share = _dropping(model, asked.null, some, dropped)
    _check_null_call(model, few, null)
    options = replace(options, dropped=share)
    set_moments(model, some, form)
    if asked.out is not None:
        _check_folder(asked.out, asked.name, model, entry, asked.card)
    place = Launched(options.batch_size) if asked.accelerate else Place(_device(asked, model))
    task = _task(asked, options, model, (source, held, some), form, null, place)
    facts = data_facts(source, some, held, form, words)
    return Ready(task, entry, facts, _learned(asked))


def _task(
    asked: Asked,
    options: Options,
    model: NetworkScore,
    data: tuple[Source, Batch | None, Batch],
    form: Form,
    null: Mapping[str, Tensor],
    place: Place,
) -> Task:
    r"""The task, on its device."""

    source, held, some = data
    usual = LogNormal(CENTRE + math.log(model.data_scale or 1.0))
    levels = usual if asked.levels is None else asked.levels
    check_levels(levels, model.process)
    loss = as_loss(asked.loss)
    check_takes(loss, some.condition)
    facts = {
        **options.facts(),
        "name": asked.name,
        "coupling": asked.coupling,
        "null": {name: value.tolist() for name, value in null.items()},
        "learned": _learned(asked),
        "process": repr(model.process),
        "predicts": model.predicts,
        "bins": form.bins,
        "low": form.low,
        "high": form.high,
        "data": fingerprint(some),
        "validation": None if held is None else fingerprint(held),
        "network": _digest(model),
        "loss": words_of(loss),
        "levels": words_of(levels),
    }
    model.to(place.device)
    dtype = next(model.parameters()).dtype
    null = {name: value.to(place.device) for name, value in null.items()}
    drawing = Drawing(form, levels, asked.coupling, options.dropped, null, options.seed)  # type: ignore[arg-type]
    held = None if held is None else held.to(place.device, dtype)
    return Task(model, source, held, loss, drawing, options, facts, asked.out, place)


def _network(
    asked: Asked, network: nn.Module | None, name: str | None, some: Batch, seed: int
) -> tuple[nn.Module, Json]:
    r"""The network that is asked for, and its entry in the card."""

    if network is None:
        with restored(torch.device("cpu")):
            torch.default_generator.manual_seed(seed)
            process = asked.process or EDM()
            shape = tuple(process.prior_shape(tuple(some.x.shape))[1:])
            return built(name, asked.settings, shape, classes_of(some))
    if asked.settings is None:
        return network, {}
    return network, {"name": name_of(network), "settings": dict(asked.settings)}


def _given(asked: Asked, model: NetworkScore, some: Batch) -> NetworkScore:
    r"""A copy of a score model that is trained on, around the same network."""

    for name in ("process", "predicts", *(("settings",) if hasattr(model, "card") else ())):
        if getattr(asked, name) is not None:
            raise ValueError(f"{name}= has no effect on a score model, which has its own.")
    unknown = [name for name in some.condition if name not in model.conditions]
    if unknown:
        raise ValueError(
            f"data has the condition {unknown[0]!r}, but model takes the conditions: "
            f"{', '.join(model.conditions) or 'none'}."
        )
    check_shape(model, tuple(some.x.shape[1:]), "data")
    made = around(model, model.network)  # type: ignore[arg-type]
    made.learned = "score"
    return made.requires_grad_(True)


def _entry_of(asked: Asked, model: NetworkScore) -> Json:
    r"""The entry in the card of the network of a score model."""

    network = network_of(model)
    if asked.settings is not None and isinstance(network, nn.Module):
        return {"name": name_of(network), "settings": dict(asked.settings)}
    known = getattr(model, "card", {}).get("network", {})
    return dict(known) if isinstance(known, dict) else {}


def _learned(asked: Asked) -> str:
    return LEARNED[asked.coupling] if asked.learned is None else as_learned(asked.learned)


def _check_pairs(coupling: Coupling, some: Batch, process: Process | None) -> None:
    if coupling == "paired" and some.z is None:
        raise ValueError(
            "coupling='paired' needs the other half of each pair; pass data={'x': x, 'z': z}, or an npz file "
            "with both."
        )
    if coupling != "independent" and isinstance(process, BlockProcess):
        raise ValueError(
            f"coupling={coupling!r} pairs data with noise of the same shape, which {process} does not have; leave "
            "it out."
        )
    if coupling != "paired" and some.z is not None:
        raise ValueError(
            f"data has pairs z, which coupling={coupling!r} does not use; pass coupling='paired', or leave them "
            "out."
        )


def _check_effect(asked: Asked, options: Options, held: Batch | None) -> None:
    r"""Refuses options without effect."""

    if options.patience is not None and held is None:
        raise ValueError(
            f"patience={options.patience} has no effect without held-out data; pass validation=, or leave it out."
        )
    if asked.accelerate and asked.device is not None:
        raise ValueError(
            "device= has no effect with accelerate=True, which chooses the devices; leave it out."
        )


def _check_held(held: Batch | None, some: Batch) -> None:
    r"""Refuses held-out data of another form than the data."""

    if held is None:
        return
    if held.x.shape[1:] != some.x.shape[1:]:
        raise ValueError(
            f"validation must have samples of shape {tuple(some.x.shape[1:])}, as data, but has "
            f"{tuple(held.x.shape[1:])}."
        )
    if held.condition.keys() != some.condition.keys() or (held.z is None) != (some.z is None):
        names = (", ".join(one.condition) or "no conditions" for one in (some, held))
        raise ValueError(
            "validation must have the entries of data, {}, but has {}.".format(*names)
        )
    for name, value in some.condition.items():
        mine, theirs = (
            (tuple(one.shape[1:]), one.is_floating_point())
            for one in (value, held.condition[name])
        )
        if mine != theirs:
            raise ValueError(
                f"{name} of validation must be as that of data, {tuple(value.shape[1:])} in {value.dtype}, but is "
                f"{tuple(held.condition[name].shape[1:])} in {held.condition[name].dtype}."
            )


def _dropping(
    model: NetworkScore, given: Mapping[str, object] | None, some: Batch, share: float | None
) -> tuple[dict[str, Tensor], float]:
    r"""The values for no condition, and the share of samples that get them."""

    assert isinstance(model.network, nn.Module)
    null = null_of(model.network, given)
    if given is not None:
        check_null(null, some)
    missing = [name for name in some.condition if name not in null]
    if share is None:
        share = DROPPED if some.condition and not missing else 0.0
    if share and not some.condition:
        raise ValueError(f"dropped={share:g} has no effect, since the data has no conditions.")
    if share and missing:
        raise ValueError(
            f"dropped={share:g} needs the value of {missing[0]!r} that stands for none; pass "
            f"null={{{missing[0]!r}: ...}}, or dropped=0."
        )
    return null if share else {}, share


def _check_null_call(model: NetworkScore, few: Batch, null: Mapping[str, Tensor]) -> None:
    r"""Refuses values for no condition that the network does not take, by a call with them."""

    if not null:
        return
    none = {n: torch.where(v == v, null[n].to(v), v) for n, v in few.condition.items()}
    try:
        check_output(model, few._replace(condition=none))
    except (ValueError, RuntimeError, IndexError) as error:
        said = ", ".join(f"{name!r}: {value.tolist()}" for name, value in null.items())
        raise ValueError(f"null={{{said}}} is not what the network takes: {error}") from error


def _device(asked: Asked, model: NetworkScore) -> torch.device:
    r"""The device that is asked for, or that of the network; new networks go to the GPU if there is one."""

    said = as_device("device", asked.device)
    if said is not None:
        return said
    if asked.model is None or isinstance(asked.model, str):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device_of(model.modules()) or torch.device("cpu")


def _digest(model: NetworkScore) -> str:
    r"""The kind, the layers and the shapes of a network, in words."""

    assert isinstance(model.network, nn.Module)
    shapes = [f"{n}{tuple(v.shape)}{v.dtype}" for n, v in model.network.state_dict().items()]
    return f"{type(model.network).__name__} {word(repr(model.network), *shapes):x}"


def _check_folder(out: Path, name: str, model: NetworkScore, entry: Json, card: Json) -> None:
    r"""Refuses a folder or a network that could not be written, by writing it elsewhere."""

    if not name.isidentifier():
        raise ValueError(f"name must be a plain name, such as 'model', but is {name!r}.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, but {out} is a file.")
    if (out / f"{name}.json").exists() and not (out / CHECKPOINT).exists():
        raise ValueError(f"{out} holds a finished model; pass another folder as out=.")
    network = network_of(model)
    kind = type(network)
    if "settings" not in entry and not hasattr(network, "config"):
        raise ValueError(
            f"{kind.__name__} can be saved with the settings that make it; pass settings=, the keyword arguments "
            f"of {kind.__name__}, as {{}} for none, or leave out out=."
        )
    with tempfile.TemporaryDirectory() as place:
        card = {**({"network": entry} if entry else {}), **card}
        save(model, Path(place) / name, card or None, dtype=EXACT)
    check_writable(out)
    path = name_of(network) if isinstance(network, nn.Module) else ""  # as cards do
    path = entry.get("name", path)
    if ":" in path and path not in REGISTERED and not path.startswith(DIFFUSERS):
        warn(
            "the model will be loaded by ss.load(folder, trust=True), or after "
            f"ss.register_network({kind.__name__})."
        )
