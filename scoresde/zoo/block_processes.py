r"""Processes on blocks in cards: their settings, and matrices as tensors."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..files import Json
from ..processes.blocks.diagonal import Blurring, CorrelatedNoise
from ..processes.blocks.langevin import CLD
from ..processes.blocks.matrix import MatrixProcess
from ..processes.process import Process

KINDS = {kind.__name__: kind for kind in (CLD, Blurring, CorrelatedNoise, MatrixProcess)}
SETTINGS = {
    "CLD": ("beta", "mass", "gamma", "t_min", "t_max"),
    "Blurring": ("shape", "blur", "floor"),
    "CorrelatedNoise": (),
    "MatrixProcess": ("data_size", "t_min", "t_max"),
}
MATRICES = {"CorrelatedNoise": ("covariance_matrix",), "MatrixProcess": ("F", "G", "start")}
LARGEST = 2**20  # entries of a sample's shape


def described_blocks(process: Process) -> tuple[Json, dict[str, Tensor], Process | None] | None:
    r"""Returns a process on blocks as settings, matrices and the process inside it, if there is one.

    It is `None` if the process is of another kind, or a function sets it.
    """

    name = type(process).__name__
    if type(process) is not KINDS.get(name):
        return None
    settings = {one: getattr(process, one) for one in SETTINGS[name]}
    matrices = {one: getattr(process, one) for one in MATRICES.get(name, ())}
    matrices = {one: value for one, value in matrices.items() if value is not None}
    if any(map(callable, (*settings.values(), *matrices.values()))):
        return None
    plain: Json = {n: list(v) if isinstance(v, tuple) else v for n, v in settings.items()}
    tensors = {n: torch.as_tensor(v).double().contiguous() for n, v in matrices.items()}
    return plain, tensors, getattr(process, "process", None)


def made_blocks(
    name: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor], inner: Process | None
) -> Process:
    r"""Returns the process of an entry.

    Raises:
        ValueError: If the entry does not fit its kind.
    """

    if set(settings) != set(SETTINGS[name]):
        raise ValueError(f"process: {name} has the settings {', '.join(SETTINGS[name]) or 'none'}")
    missing = [one for one in MATRICES.get(name, ()) if one not in tensors and one != "start"]
    if missing:
        raise ValueError(f"process: {name} has no {missing[0]!r}")
    known = {**settings, **tensors}
    if "shape" in known:
        if not known["shape"] or math.prod(known["shape"]) > LARGEST:
            raise ValueError(f"process: no sample has the shape {known['shape']}")
        known["shape"] = tuple(known["shape"])
    if (inner is None) == (name in ("Blurring", "CorrelatedNoise")):
        raise ValueError(
            f"process: {name} {'lacks' if inner is None else 'has no'} process inside"
        )
    if inner is not None:
        known["process"] = inner
    kind: Any = KINDS[name]
    made: Process = kind(**known)
    return made
