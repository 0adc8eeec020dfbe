r"""Latents in files, with all that the way back needs. Nothing in a file is executed."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solvers import Solution

from ..stored import replacing

NEEDED = ("x", "times", "calls", "status", "provenance")


def save_latents(file: str | Path, z: Solution) -> None:
    r"""Writes latents with their grid, solver, model and companion, whole or not at all.

    Arguments:
        file: An npz file.
        z: The solution of :func:`scoresde.encode`.
    """

    file = check_latents_file(file)
    if not isinstance(z, Solution):
        raise TypeError(f"z must be the solution of ss.encode, not a {type(z).__name__}.")
    arrays: dict[str, Any] = {
        "x": z.x.cpu().numpy(),
        "times": z.times.numpy(),
        "calls": z.calls.numpy(),
        "status": np.array(z.status),
        "provenance": json.dumps(z.provenance),
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


def load_latents(file: str | Path) -> Solution:
    r"""Returns latents that :func:`save_latents` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no latents, or is damaged.
    """

    file = check_latents_file(file)
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}.")
    try:
        with np.load(file, allow_pickle=False) as loaded:
            if isinstance(loaded, np.ndarray):
                raise ValueError("it is a bare array")
            arrays = dict(loaded)
            whole = ("x", "calls", "status", "companion")
            if len({len(arrays[name]) for name in whole if name in arrays}) > 1:
                raise ValueError("its entries are of different numbers of samples")
        missing = [name for name in NEEDED if name not in arrays]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        provenance = json.loads(str(arrays["provenance"]))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(
            f"{file} holds no latents of ss.encode, or is damaged: {error}."
        ) from None
    x, times, calls = (torch.from_numpy(arrays[name]) for name in ("x", "times", "calls"))
    none = torch.zeros_like(calls)
    pair = arrays.get("companion")
    return Solution(
        x=x,
        times=times,
        reached=times[-1].expand(len(x)),
        calls=calls,
        accepted=none,
        rejected=none,
        status=tuple(str(status) for status in arrays["status"]),
        provenance=provenance,
        companion=None if pair is None else torch.from_numpy(pair),
    )
