r"""Latents in files, with everything that the way back needs. Nothing in a file is executed."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solvers import Solution, get
from solvers.catalogue import name_of
from solvers.doors.signatures import checked

from ..files import Entry, check_entries, each, finite, or_none, replacing, text

NEEDED = ("x", "times", "calls", "status", "provenance")
COUNTS = ("calls", "accepted", "rejected")
MADE = {
    "solver": Entry("the name of a solver", text),
    "clock": Entry("the name of a clock, or null", or_none(text)),
    **dict.fromkeys(("rtol", "atol"), Entry("a tolerance, or null", or_none(finite))),
    "process": Entry("a process in words", text),
    "conditions": Entry("names", each(text)),
}


@checked
def save_latents(file: str | Path, z: Solution) -> None:
    r"""Writes latents with their grid, solver, model and companion, whole or not at all.

    Arguments:
        file: An npz file.
        z: The solution of :func:`scoresde.encode`.

    Examples:
        >>> ss.save_latents(folder / "z.npz", ss.encode(model, torch.ones(3, 2), steps=8))
        >>> ss.decode(model, ss.load_latents(folder / "z.npz")).x.shape
        torch.Size([3, 2])
    """

    file = check_latents_file(file)
    if not isinstance(z, Solution):
        raise TypeError(f"z must be the solution of ss.encode, not a {type(z).__name__}.")
    name = None if z.solver is None else name_of(z.solver)
    if name is None:
        raise ValueError(
            f"a file holds only the name of a solver, and {z.solver} differs from the solver of that name "
            "in the catalogue, so decoding would use another one; keep z itself, or save the tensor z.x."
        )
    arrays: dict[str, Any] = {
        "x": z.x.cpu().numpy(),
        "times": z.times.numpy(),
        **{name: getattr(z, name).numpy() for name in COUNTS},
        "status": np.array(z.status),
        "provenance": json.dumps({**z.provenance, "solver": name}),
    }
    if z.companion is not None:
        arrays["companion"] = z.companion.cpu().numpy()
    with replacing(file) as part, part.open("wb") as handle:
        np.savez(handle, **arrays)


def check_latents_file(file: str | Path) -> Path:
    r"""Refuses a file that cannot hold latents."""

    file = Path(file)
    if file.suffix != ".npz":
        raise ValueError(f"latents need an npz file, which holds their grid, not {file.name}.")
    return file


@checked
def load_latents(file: str | Path) -> Solution:
    r"""Returns latents that :func:`save_latents` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold latents, or is damaged.

    Examples:
        >>> z = ss.encode(model, torch.ones(3, 2), steps=8)
        >>> ss.save_latents(folder / "z.npz", z)
        >>> torch.equal(ss.load_latents(folder / "z.npz").x, z.x)
        True
    """

    file = check_latents_file(file)
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
        provenance = json.loads(str(arrays["provenance"]))
        check_entries({name: provenance[name] for name in MADE if name in provenance}, MADE)
        solver = get(provenance["solver"])
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        words = str(error).removesuffix(".")
        raise ValueError(
            f"{file} holds no latents of ss.encode, or is damaged: {words}."
        ) from None
    x, times = (torch.from_numpy(arrays[name]) for name in ("x", "times"))
    none = np.zeros_like(arrays["calls"])  # for files without the number of steps
    counts = {name: torch.from_numpy(arrays.get(name, none)) for name in COUNTS}
    pair = arrays.get("companion")
    return Solution(
        x=x,
        times=times,
        reached=times[-1].expand(len(x)),
        **counts,
        status=tuple(str(status) for status in arrays["status"]),
        provenance=provenance,
        companion=None if pair is None else torch.from_numpy(pair),
        solver=solver,
    )


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


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    r"""Refuses arrays that are not those of a solution."""

    x, times = arrays["x"], arrays["times"]
    for name in ("x", "times", "companion"):
        if name in arrays and not (
            arrays[name].dtype.kind in "fc" and np.isfinite(arrays[name]).all()
        ):
            raise ValueError(f"{name!r} must hold finite floating-point numbers")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"'x' must have shape (B, *), but has {x.shape}")
    batch = len(x)
    if len(times) < 2 or times.shape[1:] not in ((), (batch,)):
        raise ValueError(
            f"'times' must have shape (n + 1,) or (n + 1, {batch}), but has {times.shape}"
        )
    if not ((np.diff(times, axis=0) >= 0).all() and (times[-1] > times[0]).all()):
        raise ValueError("'times' must rise from data to noise")
    _check_rows(arrays, batch)


def _check_rows(arrays: dict[str, np.ndarray], batch: int) -> None:
    r"""Refuses per-sample arrays with another number of samples or another dtype."""

    x, status = arrays["x"], arrays["status"]
    counts = {name: arrays[name] for name in COUNTS if name in arrays}
    for name, found in counts.items():
        if found.dtype.kind not in "iu":
            raise ValueError(f"{name!r} must hold whole numbers, but holds {found.dtype}")
    if status.dtype.kind != "U":
        raise ValueError(f"'status' must hold words, but holds {status.dtype}")
    for name, found in (*counts.items(), ("status", status)):
        if found.shape != (batch,):
            raise ValueError(f"{name!r} must have shape ({batch},), but has {found.shape}")
    pair = arrays.get("companion")  # in its own coordinates
    size = x.size * (2 if x.dtype.kind == "c" else 1)  # of states, which are real
    if pair is not None and (pair.shape[:2] != (batch, 2) or pair.size != 2 * size):
        raise ValueError(
            f"'companion' must have shape ({batch}, 2, *), for two states like 'x', but has {pair.shape}"
        )
