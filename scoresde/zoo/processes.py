r"""Processes in cards: those of this package by name and settings, others as a table, or by an import path."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..files import Entry, Json, check_entries, each, finite, mapping, or_none, shortened, text
from ..processes import schedules, standard
from ..processes.process import Process
from ..processes.tables import TabulatedProcess, tabulated
from ..processes.tabulated import Tabulated
from ..runs.grids import NAMES as GRIDS
from .block_processes import KINDS as BLOCKS
from .block_processes import described_blocks, made_blocks
from .constructors import imported, is_path, is_plain

PREFIX = "process."  # of the tensors of a table
TABLE = "table"  # the name of a process that is one
NOISE = 1e12  # the largest scale of the noise; its inverse is the smallest noise level
KINDS = {kind.__name__: kind for kind in (
    standard.VP, standard.SubVP, standard.VE, standard.EDM, standard.Interpolant
)}  # fmt: skip
SCHEDULES = {kind.__name__: kind for kind in (
    schedules.LinearBeta, schedules.Cosine, schedules.Geometric, schedules.Karras, schedules.Logit, Tabulated,
)}  # fmt: skip
NAME = Entry(
    f"one of {', '.join((*KINDS, *BLOCKS))}, {TABLE}, or of others by module:name",
    lambda name: text(name) and (name in (*KINDS, *BLOCKS, TABLE) or is_path(name)),
)
STANDARD = {
    "name": NAME,
    "schedule": Entry(
        f"one of {', '.join(SCHEDULES)}", lambda name: text(name) and name in SCHEDULES
    ),
    "settings": Entry(
        "finite numbers, or lists of them, by name",
        lambda s: (
            mapping(s)
            and each(lambda v: finite(v) or (isinstance(v, list) and each(finite)(v)))(s)
        ),
    ),
    "t_min": Entry("a finite number", finite),
    "t_max": Entry("a finite number", finite),
}
ON_BLOCKS = {
    "name": NAME,
    "settings": STANDARD["settings"],
    "process": Entry("a standard process", mapping, needed=False),
}
TABULATED = {
    "name": NAME,
    "of": Entry("the process in words", text),
    "grid": Entry(f"one of {', '.join(GRIDS)}", lambda name: text(name) and name in GRIDS),
    "levels": Entry(
        "two numbers, or null",
        lambda two: isinstance(two, list) and len(two) == 2 and each(or_none(finite))(two),
    ),
}
BY_PATH = {
    "name": NAME,
    "settings": Entry(
        "plain settings by name", lambda s: mapping(s) and is_plain(s), needed=False
    ),
}


def check_process_entry(entry: Json) -> None:
    r"""Refuses an entry that does not describe a process."""

    check_entries({"name": entry.get("name")}, {"name": NAME}, "process: ")
    name = entry["name"]
    kind = STANDARD if name in KINDS else TABULATED if name == TABLE else BY_PATH
    check_entries(entry, ON_BLOCKS if name in BLOCKS else kind, "process: ")
    inner = entry.get("process") if name in BLOCKS else None
    if inner is not None:
        check_entries(inner, STANDARD, "process: process: ")  # type: ignore[arg-type]


def described_process(process: Process, said: object = None) -> tuple[Json, dict[str, Tensor]]:
    r"""Returns a process as plain data and tensors.

    Arguments:
        process: The process.
        said: The entry of the user's card, which is kept if it names an import path.

    Raises:
        ValueError: If it has no scales and no import path, or its table misses it.
    """

    if isinstance(said, Mapping) and is_path(said.get("name")):
        _check_same(process, _by_path({"settings": {}, **said}, trust=True))
        return dict(said), {}
    schedule = getattr(process, "schedule", None)
    if type(process) in KINDS.values() and type(schedule) in SCHEDULES.values():
        plain: Any = schedule
        return {
            "name": type(process).__name__,
            "schedule": type(schedule).__name__,
            "settings": dataclasses.asdict(plain),
            "t_min": process.t_min,
            "t_max": process.t_max,
        }, {}
    known = described_blocks(process)
    if known is not None:
        settings, matrices, part = known
        entry: Json = {"name": type(process).__name__, "settings": settings}
        if part is not None:
            entry["process"] = inside = described_process(part)[0]
            check_entries(inside, STANDARD, "process: process: ")
        return entry, {PREFIX + name: value for name, value in matrices.items()}
    if not process.has_scales:
        raise ValueError(
            f"{process} has no scales that a table could hold; write a function or class without arguments that "
            "returns it, at the top of a module, and pass its name as card={'process': {'name': "
            "'module:function'}}, to be loaded with trust=True"
        )
    table = process if isinstance(process, TabulatedProcess) else tabulated(process)
    entry = {
        "name": TABLE,
        "of": table.words,
        "grid": table.usual_grid,
        "levels": list(table.levels),
    }
    tensors = {"edges": table.edges, "coefficients": table.coefficients}
    return entry, {PREFIX + name: value.contiguous() for name, value in tensors.items()}


def take_process(tensors: dict[str, Tensor], entry: Json, trust: bool = False) -> Process:
    r"""Removes the table of a process, if there is one, from the tensors of a file, and returns the process.

    Arguments:
        tensors: The tensors of the file.
        entry: The entry of the card, after its check.
        trust: Whether an import path is followed.
    """

    table = entry["name"] in (TABLE, *BLOCKS)
    names = [name for name in tensors if table and name.startswith(PREFIX)]
    found = {name.removeprefix(PREFIX): tensors.pop(name) for name in names}
    process = _process(entry, found, trust)
    if not process.has_scales:
        return process
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    least = torch.exp(-process.log_snr(ends))[0].item()
    most = process.prior_std()
    if not (least >= 1 / NOISE and most <= NOISE):
        raise ValueError(
            f"process: the noise must lie between {1 / NOISE:g} and {NOISE:g}, but its levels go from "
            f"{least:.3g}, and its largest scale is {most:.3g}: {shortened(dict(entry))}"
        )
    return process


def _process(entry: Json, found: dict[str, Tensor], trust: bool) -> Process:
    if entry["name"] in KINDS:
        schedule = SCHEDULES[entry["schedule"]](**entry["settings"])
        return KINDS[entry["name"]](schedule, entry["t_min"], entry["t_max"])
    if entry["name"] in BLOCKS:
        inner = entry.get("process")
        part = None if inner is None else _process(inner, {}, trust)  # type: ignore[arg-type]
        return made_blocks(str(entry["name"]), entry["settings"], found, part)  # type: ignore[arg-type]
    if entry["name"] != TABLE:
        return _by_path(entry, trust)
    for name in ("edges", "coefficients"):
        if name not in found:
            raise ValueError(f"process: the table has no {name!r}")
    low, high = entry["levels"]
    return TabulatedProcess(
        found["edges"], found["coefficients"], entry["of"], entry["grid"], (low, high)
    )


def _by_path(entry: Mapping[str, Any], trust: bool) -> Process:
    process = imported(entry["name"], "process", trust)(**entry.get("settings", {}))
    if not isinstance(process, Process):
        raise ValueError(
            f"its process is made by {shortened(entry['name'])}, which returns a {type(process).__name__}"
        )
    return process


def _check_same(process: Process, again: Process) -> None:
    r"""Refuses an import path that leads to another process."""

    same = type(process) is type(again) and (process.t_min, process.t_max) == (
        again.t_min,
        again.t_max,
    )
    if same:
        t = torch.linspace(process.t_min, process.t_max, 33, dtype=torch.float64)
        x = torch.linspace(-2, 2, 33, dtype=torch.float64)[:, None]
        try:
            same = torch.allclose(process.drift(x, t), again.drift(x, t))
        except (RuntimeError, ValueError, IndexError):  # a drift of samples of another shape
            pass
        same = same and torch.allclose(process.diffusion(t), again.diffusion(t))
    if not same:
        raise ValueError(f"its process is {process}, but the path in the card makes {again}")
