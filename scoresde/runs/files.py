r"""Solutions in files, with everything that the way back or the rest of a run needs.

Nothing in a file is executed. It holds arrays, and JSON text in which the arrays of a nested memory have numbers.
"""

import json
import math
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from solvers import Solution, get
from solvers.catalogue import name_of
from solvers.doors.signatures import checked
from solvers.doors.values import as_device

from ..files import Entry, check_entries, each, finite, mapping, or_none, replacing, text

NEEDED = ("x", "times", "calls", "status", "provenance")
NPZ = "a solution needs an npz file, which holds all its arrays"
COUNTS = ("calls", "accepted", "rejected")
STATES = ("x", "path", "companion")
DENSITIES = ("log_density", "log_density_error")
MADE = {
    "solver": Entry("the name of a solver", text),
    "clock": Entry("the name of a clock, or null", or_none(text)),
    **dict.fromkeys(("rtol", "atol"), Entry("a tolerance, or null", or_none(finite))),
    "process": Entry("a process in words", text),
    "conditions": Entry("names", each(text)),
}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


MEMORY = {
    "verb": Entry("the name of a function", text),
    "start": Entry("an array", _is_tensor),
    "times": Entry("an array", _is_tensor),
    "companion": Entry("an array, or null", or_none(_is_tensor)),
    **dict.fromkeys(("conditions", "numbers"), Entry("text", text)),
    "options": Entry("options by name", mapping),
    "parts": Entry("the places of batches", each(mapping)),
}
Arrays: TypeAlias = dict[str, np.ndarray]


@checked
def save_solution(file: str | Path, solution: Solution) -> None:
    r"""Writes a solution with its path, provenance and companion, whole or not at all.

    If its run ended early, the file holds what :func:`scoresde.resume` needs to go on, too.

    Arguments:
        file: An npz file.
        solution: The solution.

    Raises:
        ValueError: If the file cannot hold it, as with a solver that is not in the catalogue.

    Examples:
        >>> s = ss.sample(model, 4, steps=10, callback=lambda event: event.fraction > 0.5)
        >>> ss.save_solution(folder / "s.npz", s)
        >>> ss.resume(model, ss.load_solution(folder / "s.npz"))
        Solution((4, 2) by dpmpp_2m, 10 intervals, 11 calls per sample)
    """

    file = check_npz(file, NPZ)
    name = None if solution.solver is None else name_of(solution.solver)
    if name is None:
        raise ValueError(
            f"a file holds only the name of a solver, and {solution.solver} differs from the solver of that "
            "name in the catalogue, so another one would be used later; keep the solution itself, or save "
            "its tensor x."
        )
    write_solution(file, solution, name)


def write_solution(file: Path, solution: Solution, solver: str) -> None:
    r"""Writes a solution, with the name of its solver."""

    arrays = solution_arrays(solution, solver)
    with replacing(file) as part, part.open("wb") as handle:
        np.savez(handle, **arrays)


def solution_arrays(solution: Solution, solver: str) -> dict[str, Any]:
    r"""Returns what a file of a solution holds by name, with the name of its solver."""

    arrays: dict[str, Any] = {
        "times": solution.times.numpy(),
        "reached": solution.reached.numpy(),
        **{name: getattr(solution, name).numpy() for name in COUNTS},
        "status": np.array(solution.status),
        "provenance": np.array(json.dumps({**solution.provenance, "solver": solver})),
    }
    for name in (*STATES, *DENSITIES):
        if (states := getattr(solution, name)) is not None:
            arrays[name] = states.detach().cpu().numpy()
    if solution.memory is not None:
        arrays["memory"] = np.array(json.dumps(_packed(solution.memory, arrays)))
    return arrays


def check_npz(file: str | Path, need: str) -> Path:
    r"""Refuses a file that cannot hold a solution; the need for one that can is in words."""

    file = Path(file)
    if file.suffix != ".npz":
        raise ValueError(f"{need}, not {file.name}.")
    return file


@checked
def load_solution(file: str | Path, device: str | torch.device | None = None) -> Solution:
    r"""Returns a solution that :func:`save_solution` wrote.

    Arguments:
        file: An npz file.
        device: The device for a run that was on another device than the CPU and is to go on. By default, all
            is loaded to the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold a solution, or is damaged.

    Examples:
        >>> s = ss.sample(model, 4, steps=3)
        >>> ss.save_solution(folder / "s.npz", s)
        >>> torch.equal(ss.load_solution(folder / "s.npz").x, s.x)
        True
    """

    home = as_device("device", device) or torch.device("cpu")
    return read_solution(check_npz(file, NPZ), "solution", home)


def read_solution(file: Path, noun: str, device: torch.device) -> Solution:
    r"""Returns the solution in a file.

    Arguments:
        file: The file.
        noun: What it is, for messages.
        device: The device of what was not on the CPU.
    """

    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}.")
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not an archive of arrays")
        _check_sizes(file)
        with np.load(file, allow_pickle=False) as loaded:
            arrays = dict(loaded)
        missing = [name for name in NEEDED if name not in arrays]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        _check_arrays(arrays)
        return _read(arrays, device)
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, AttributeError, KeyError,
            RecursionError) as error:  # fmt: skip
        words = str(error).removesuffix(".")
        raise ValueError(f"{file} holds no {noun}, or is damaged: {words}.") from None


def _read(arrays: Arrays, device: torch.device) -> Solution:
    provenance = json.loads(str(arrays["provenance"]))
    check_entries({name: provenance[name] for name in MADE if name in provenance}, MADE)
    memory = None
    if "memory" in arrays:
        memory = _unpacked(json.loads(str(arrays["memory"])), arrays, device)
        check_entries(memory, MEMORY)
    none = np.zeros_like(arrays["calls"])  # for files without the number of steps
    tensors = {
        name: torch.from_numpy(arrays[name]) for name in (*STATES, *DENSITIES) if name in arrays
    }
    times = torch.from_numpy(arrays["times"])
    reached = times[-1].expand(len(tensors["x"]))
    return Solution(
        times=times,
        reached=torch.from_numpy(arrays["reached"]) if "reached" in arrays else reached,
        **{name: torch.from_numpy(arrays.get(name, none)) for name in COUNTS},
        status=tuple(str(status) for status in arrays["status"]),
        provenance=provenance,
        solver=get(provenance["solver"]),
        memory=memory,
        **tensors,
    )


def _packed(value: object, arrays: dict[str, Any]) -> object:
    r"""A part of a memory as JSON holds it; its tensors go into the arrays."""

    if isinstance(value, Tensor):
        name = f"memory {len(arrays)}"
        arrays[name] = value.detach().cpu().numpy()
        return {"array": name, "away": value.device.type != "cpu"}
    if isinstance(value, dict):
        return {"entries": {name: _packed(entry, arrays) for name, entry in value.items()}}
    if isinstance(value, tuple):
        return {"each": [_packed(entry, arrays) for entry in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"a file holds numbers and text, but this run depends on a {type(value).__name__}, such as a noise= "
        "or eta= of its own; keep the solution itself."
    )


def _unpacked(value: Any, arrays: Arrays, device: torch.device) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        tensor = torch.from_numpy(arrays[value["array"]])
        return tensor.to(device) if value["away"] else tensor
    if "each" in value:
        return tuple(_unpacked(entry, arrays, device) for entry in value["each"])
    return {name: _unpacked(entry, arrays, device) for name, entry in value["entries"].items()}


def _check_sizes(file: Path) -> None:
    r"""Refuses arrays whose declared size is larger than the file, before memory is allocated."""

    there = file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            with archive.open(info) as handle:
                version = np.lib.format.read_magic(handle)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(handle)
                said = math.prod(shape) * dtype.itemsize + handle.tell()
            if said != info.file_size or info.file_size > there:
                raise ValueError(
                    f"its entry {info.filename.removesuffix('.npy')!r} declares {said} bytes, but the "
                    f"file has {min(there, info.compress_size)}"
                )


def _check_arrays(arrays: Arrays) -> None:
    r"""Refuses arrays that are not those of a solution."""

    x, times = arrays["x"], arrays["times"]
    for name in ("x", "times", "companion", "path", "reached"):
        if name not in arrays:
            continue
        whole = (
            name == "path" or np.isfinite(arrays[name]).all()
        )  # a path ends where a sample failed
        symbols = name == "x" and "state" in json.loads(str(arrays["provenance"]))
        if arrays[name].dtype.kind not in ("fci" if symbols else "fc") or not whole:
            raise ValueError(f"{name!r} must hold finite floating-point numbers")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"'x' must have shape (B, *), but has {x.shape}")
    batch = len(x)
    if len(times) < 2 or times.shape[1:] not in ((), (batch,)):
        raise ValueError(
            f"'times' must have shape (n + 1,) or (n + 1, {batch}), but has {times.shape}"
        )
    path = arrays.get("path")
    wanted = (len(times), batch, *_state(arrays))
    if path is not None and path.shape != wanted:
        raise ValueError(f"'path' must have shape {wanted}, but has {path.shape}")
    _check_rows(arrays, batch)


def _state(arrays: Arrays) -> tuple[int, ...]:
    r"""The shape of one state, which is that of one sample unless the file says another."""

    said = json.loads(str(arrays["provenance"])).get("state")
    if said is None:
        return tuple(arrays["x"].shape[1:])
    if not isinstance(said, list) or not all(isinstance(n, int) and n > 0 for n in said):
        raise ValueError(f"'state' must be the shape of one state, but is {said!r}")
    return tuple(said)


def _check_rows(arrays: Arrays, batch: int) -> None:
    r"""Refuses per-sample arrays with another number of samples or another dtype."""

    x, status = arrays["x"], arrays["status"]
    counts = {name: arrays[name] for name in COUNTS if name in arrays}
    for name, found in counts.items():
        if found.dtype.kind not in "iu":
            raise ValueError(f"{name!r} must hold whole numbers, but holds {found.dtype}")
    if status.dtype.kind != "U":
        raise ValueError(f"'status' must hold words, but holds {status.dtype}")
    ends = {name: arrays[name] for name in ("reached", *DENSITIES) if name in arrays}
    for name, found in {**counts, **ends, "status": status}.items():
        if found.shape != (batch,):
            raise ValueError(f"{name!r} must have shape ({batch},), but has {found.shape}")
    pair = arrays.get("companion")  # in its own coordinates
    size = batch * math.prod(_state(arrays)) * (2 if x.dtype.kind == "c" else 1)  # of real states
    if pair is not None and (pair.shape[:2] != (batch, 2) or pair.size != 2 * size):
        raise ValueError(
            f"'companion' must have shape ({batch}, 2, *), for two states like 'x', but has {pair.shape}"
        )
