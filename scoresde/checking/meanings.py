r"""What a network may mean: the process of its noise, its time label, what it predicts, with which sign.

A reading says how a network is called: for the noise of which process, and with which label. Its answer is then
taken for each of the predictions, with either sign, at no further call.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..adapters.foreign import Foreign, Label
from ..models.network import NetworkScore
from ..models.predictions import PREDICTIONS
from ..processes.process import Process
from ..processes.schedules import Cosine, Geometric, Karras, LinearBeta, Logit
from ..processes.standard import EDM, VE, VP, Interpolant, Scheduled
from ..processes.tabulated import Tabulated

PREDICTED = tuple(name for name in PREDICTIONS if name != "edm")
LEVEL, LOG = Label("noise_level"), Label("log_noise_level")
KINDS: tuple[type[VP | VE | EDM | Interpolant], ...] = (VP, VE, EDM, Interpolant)
SCHEDULES = (Cosine, Geometric, Karras, LinearBeta, Logit)
QUARTER = Label("log_noise_level", 0.25)


class Range(NamedTuple):
    r"""A range of values: the data as the network knows it is `factor` times the data, plus `offset`."""

    words: str
    factor: float
    offset: float


RANGES = (
    Range("data", 1.0, 0.0),
    Range("2 * data - 1", 2.0, -1.0),
    Range("(data + 1) / 2", 0.5, 0.5),
    Range("data / 127.5 - 1", 1 / 127.5, -1.0),
)


class Reading(NamedTuple):
    r"""How a network is called.

    Arguments:
        process: The process of its noise.
        written: The process as code.
        label: Its time label, or `None` for the time itself.
        data_std: The constant of "edm" networks, or `None` for others.
        known: Whether it is that of the declaration.
    """

    process: Process
    written: str
    label: Label | Callable[[Tensor], Tensor] | None = None
    data_std: float | None = None
    known: bool = False

    def labels(self, t: Tensor) -> Tensor:
        r"""Returns the labels of some times, like `t`."""

        if self.label is None:
            return t
        return self.label(self.process, t) if isinstance(self.label, Label) else self.label(t)


class Meaning(NamedTuple):
    r"""What a network may mean.

    Arguments:
        reading: How it is called.
        predicts: What it predicts.
        sign: The sign of its answer, 1 or -1.
        range: The range of the data.
        fit: The mean logarithm of its error against the best isotropic linear denoiser's.
    """

    reading: Reading
    predicts: str
    sign: int
    range: Range
    fit: float


def readings(model: NetworkScore, sizes: Sequence[float]) -> list[Reading]:
    r"""Returns the ways in which a network may be meant to be called, the declared one first.

    Arguments:
        model: The model of the network.
        sizes: What the constant of an "edm" network may have been taken from.
    """

    declared, own = model.process, label_of(model.network)
    edm = model.data_std if model.predicts == "edm" else None
    code = written(declared)
    found = [Reading(declared, code, own, edm, known=True)]
    found += [Reading(declared, code, label) for label in _labels(declared)]
    found += [
        Reading(process, written(process), label)
        for process in _kin(declared)
        for label in (own, None, LEVEL, QUARTER)
    ]
    found += [Reading(*known) for known in _standard()]
    stds = dict.fromkeys((model.data_std, 0.5, 1.0, *(round(size, 3) for size in sizes)))
    found += [Reading(EDM(), "ss.EDM()", None, std) for std in stds]
    return list(_once(found))


def asked(model: NetworkScore, reading: Reading) -> NetworkScore:
    r"""Returns a model whose raw answer is that of the network, called as a reading says."""

    predicts = "data" if reading.data_std is None else "edm"
    network = _called(model.network, reading)
    return NetworkScore(
        network,
        reading.process,
        predicts,
        conditions=model.conditions,
        data_std=reading.data_std,
    )


def sign_of(network: object) -> int:
    r"""Returns the sign that a network's answer is declared to have."""

    return -1 if isinstance(network, Foreign) and network.factor < 0 else 1


def label_of(network: object) -> Label | Callable[[Tensor], Tensor] | None:
    r"""Returns the label that a network is declared to have, or `None` for the time itself."""

    label = network.label if isinstance(network, Foreign) else None
    return None if label == Label() else label


def written(process: Process) -> str:
    r"""Returns a process as code, or `model.process` where that cannot be told."""

    if not isinstance(process, Scheduled) or type(process) not in KINDS:
        return "model.process"
    name, schedule = type(process).__name__, process.schedule
    if type(schedule) not in SCHEDULES:
        return "model.process"
    plain = type(schedule)() == schedule
    code = f"ss.{type(schedule).__name__}()" if plain else f"ss.{schedule!r}"
    default = any(
        process.schedule == other().schedule for other in KINDS if other is type(process)
    )
    first = [] if default else [code]
    ends = zip(("t_min", "t_max"), schedule.domain, strict=True)
    others = [f"{n}={getattr(process, n):.9g}" for n, end in ends if getattr(process, n) != end]
    return f"ss.{name}({', '.join(first + others)})"


def _labels(process: Process) -> list[Label | None]:
    r"""Labels of the process itself that networks are known to take."""

    ends = process.t_min + process.t_max
    found = [None, *(Label("t", factor) for factor in (999, 1000, 1 / 999, 1 / 1000))]
    found += [Label("t", -1, end) for end in (round(ends), ends)]
    found += [Label("t", -factor, factor) for factor in (1000, 999)]
    return [*found, Label("t", -1, 999), LEVEL, LOG, QUARTER]


def _kin(process: Process) -> list[Process]:
    r"""Processes of the same noise levels at the same times, whose signal is scaled otherwise."""

    if not isinstance(process, Scheduled):
        return []
    ends = (process.t_min, process.t_max)
    kinds = [kind for kind in (VP, VE) if not isinstance(process, kind)]
    return [kind(process.schedule, *ends) for kind in kinds]


@lru_cache(maxsize=1)
def _standard() -> list[tuple[Process, str, Label | None]]:
    r"""Processes that many networks were trained on, with their labels."""

    linear = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scaled = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    table = "ss.VP(ss.Tabulated.from_betas(torch.linspace({})))"
    root = "ss.VP(ss.Tabulated.from_betas(torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))"
    many = (None, Label("t", 999), Label("t", 1000))
    away = (Label("t", -1, 1), Label("t", -1000, 1000))
    return [
        *((VP(), "ss.VP()", label) for label in many),
        (VP(Tabulated.from_betas(linear)), table.format("1e-4, 0.02, 1000"), None),
        (VP(Tabulated.from_betas(scaled)), root, None),
        *((VP(Cosine()), "ss.VP(ss.Cosine())", label) for label in (*many, Label("t", 1000, -1))),
        *((EDM(), "ss.EDM()", label) for label in (LEVEL, LOG, QUARTER)),
        *((Interpolant(), "ss.Interpolant()", label) for label in (*many, *away)),
    ]


def _once(found: list[Reading]) -> Iterator[Reading]:
    r"""Readings that differ in what a network sees, each once."""

    seen = set()
    for reading in found:
        try:
            key = _seen(reading)
        except Exception:  # of a label of the user's own
            key = (repr(reading),)
        if reading.known or key not in seen:
            seen.add(key)
            yield reading


def _seen(reading: Reading) -> tuple[object, ...]:
    r"""What a network sees at some noise levels."""

    process = reading.process
    t = process.time(torch.tensor([-0.3, 0.0, 1.2, 2.3], dtype=torch.float64))
    numbers = torch.stack([*process.scales(t), reading.labels(t).to(t)]).flatten().tolist()
    return (reading.data_std, *(float(f"{number:.6g}") for number in numbers))


def _called(network: object, reading: Reading) -> nn.Module | Callable[..., Tensor]:
    r"""The network with the label of a reading, and no sign of its own."""

    if isinstance(network, Foreign):
        some = copy(network)
        vars(some)["_modules"] = dict(network._modules)
        some.factor, some.process, some.label = abs(network.factor), reading.process, reading.label
        return some
    if reading.label is None:
        return network  # type: ignore[return-value]
    return Foreign(network, reading.process, reading.label)  # type: ignore[arg-type]
