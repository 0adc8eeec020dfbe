r"""From the call of a job to its driver: all checks, before any work is done."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import solvers
from solvers.doors.values import as_tensor
from solvers.noise.brownian import VERSION

from ..doors.data import as_seed
from ..models.checks import check_count, model_device
from ..models.conditions import as_bound, leaves
from ..models.learned import check_learned
from ..models.score_model import ScoreModel
from ..runs.identity import identity
from ..runs.plan import Plan, describe_process
from ..runs.run import versions
from .drive import Driver
from .folder import Folder
from .manifest import Manifest, machine
from .start import Workers, check_workers
from .store import Store
from .work import VERBS, Made, ShardWork, made

OURS = {
    "first_index": "a job has all samples from 0 on",
    "seeds": "pass seed=",
    "callback": "a job shows its progress by itself",
    "on_failure": "a job lists the samples that fail, and goes on",
    "grad": "files have no gradients",
    "path": "a job keeps the ends of paths",
    "noise": "a job has its own keyed noise",
}
SHARD, PARTS = 256, 16  # samples of a shard at most, and shards of a small job
CHUNK = 2**26  # bytes that are hashed at once


@dataclass(frozen=True)
class Given:
    r"""Creates the options of a job, as they were passed.

    Arguments:
        out: The folder.
        workers: The workers.
        shard_size: The number of samples of a shard.
        threads: The number of threads of a worker.
        seed: The seed.
        progress: Whether to show a progress bar.
        options: The options and conditions of the function.
    """

    out: str | Path
    workers: Workers
    shard_size: int | None
    threads: int | None
    seed: int
    progress: bool
    options: Mapping[str, Any]


def run(
    verb: str, models: tuple[Made, ...], given: Given, count: int = 0, **data: object
) -> Folder:
    r"""Runs a job, or goes on with it.

    Arguments:
        verb: The name of the function.
        models: The models, or where they come from.
        given: The options of the job.
        count: The number of samples, if the function takes no data.
        data: The data by the name of its argument, if it does.
    """

    workers = check_workers(given.workers)
    here = workers in (None, 1)
    store = _store(given.out, here)
    seed, before = as_seed("seed", given.seed), Manifest.read(store)
    threads = _check_threads(given.threads, here, before)
    options, conditions = _parted(verb, given.options)
    known = tuple(map(made, models))
    rows = next((_check_rows(name, value) for name, value in data.items()), None)
    count = count if rows is None else len(rows)
    for model in known:
        check_learned(model, "log_likelihood" if verb == "likelihood" else verb)
        _check_conditions(model, conditions, count)
    manifest = Manifest(
        verb=verb,
        count=count,
        shard_size=_shard_size(given.shard_size, count, before, rows),
        seed=seed,
        model=_described(known),
        options={name: _words(value) for name, value in {**options, **conditions}.items()},
        data=None if rows is None else _digest(rows),
        dtype=str(torch.get_default_dtype()),
        noise_version=VERSION,
        threads=threads,
        machine=machine(),
        versions=versions(),
    )
    shipped = known if here else models
    homes = (options.get("device"), *map(model_device, known))
    cuda = any(torch.device(home).type == "cuda" for home in homes if home is not None)
    work = ShardWork(manifest.job, verb, shipped, conditions, options, seed, store, cuda)
    return Driver(manifest, work, rows, workers, given.progress).run()


def _store(out: str | Path, here: bool) -> Store:
    store = Store(str(out))
    if store.of_process and not here:
        raise ValueError(
            f"out={store.url!r} is in the memory of this process, where workers do not see it; pass a folder or "
            "an object store, or leave out workers=."
        )
    return store


def _parted(verb: str, said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    r"""The options of a function, and its conditions."""

    for name, cure in OURS.items():
        if said.get(name) is not None:
            raise ValueError(f"{name}= has no effect on a job: {cure}; leave it out.")
    known = inspect.signature(VERBS[verb]).parameters
    open_ended = verb == "edit"  # whose options are those of its methods
    said = {name: value for name, value in said.items() if value is not None}
    options = {n: v for n, v in said.items() if n in known or open_ended}
    conditions = {n: v for n, v in said.items() if n not in options}
    if isinstance(options.get("plan"), str | Path):
        options["plan"] = Plan.load(options["plan"])
    for name, value in options.items():
        if not isinstance(
            value,
            bool
            | int
            | float
            | str
            | tuple
            | list
            | torch.dtype
            | torch.device
            | Plan
            | solvers.Solver,
        ):
            raise ValueError(
                f"{name} must be one value for all samples of a job, but is a {type(value).__name__}."
            )
    return options, conditions


def _check_threads(threads: int | None, here: bool, before: Manifest | None) -> int:
    own = torch.get_num_threads()
    if threads is None:
        return own if here else before.threads if before else 1
    threads = check_count("threads", threads, 1)
    if here and threads != own:
        raise ValueError(
            f"threads={threads} is for workers, but this process has {own}; start it with "
            f"OMP_NUM_THREADS={threads}, or pass workers=2 or more."
        )
    return threads


def _check_rows(name: str, data: object) -> Any:
    r"""Data whose rows can be handed out: a tensor, an array that may be mapped from a file, or a job."""

    if isinstance(data, Folder):
        return data
    if isinstance(data, torch.Tensor) and data.is_complex():  # of a model with a transform
        rows: Any = data.detach().cpu()
    else:
        rows = data if isinstance(data, np.ndarray) else as_tensor(name, data).detach().cpu()
    if rows.ndim < 2 or not len(rows):
        raise ValueError(f"{name} must have shape (N, *), but has {tuple(rows.shape)}.")
    return rows


def _check_conditions(model: ScoreModel, conditions: Mapping[str, Any], count: int) -> None:
    for name, value in conditions.items():
        for leaf in leaves(as_bound(name, value)):
            if leaf.ndim and len(leaf) not in (1, count):
                raise ValueError(
                    f"{name} must have leading size {count} or 1, but has {len(leaf)}."
                )
    model.given(**conditions)


def _shard_size(size: int | None, count: int, before: Manifest | None, data: Any) -> int:
    if isinstance(data, Folder):
        if size not in (None, data.manifest.shard_size):
            raise ValueError(
                f"shard_size must be that of the latents, {data.manifest.shard_size}, but is {size}; leave "
                "it out."
            )
        return data.manifest.shard_size
    if size is not None:
        return min(check_count("shard_size", size, 1), count)
    return before.shard_size if before else min(SHARD, -(-count // PARTS))


def _described(models: tuple[ScoreModel, ...]) -> dict[str, str]:
    found = {}
    names = ("source", "target") if len(models) > 1 else ("model",)
    for name, model in zip(names, models, strict=True):
        kind = model.fingerprint or type(model).__name__
        found[name] = f"{kind} ({identity(model)}) of {describe_process(model)}"
    return found


def _words(value: Any) -> str:
    r"""What identifies the value of an option."""

    if isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        return str(value)
    many = isinstance(value, torch.Tensor | np.ndarray) and value.ndim
    return f"{f'values of shape {tuple(value.shape)}' if many else value} ({identity(value)})"


def _digest(data: Any) -> str:
    if isinstance(data, Folder):
        return data.manifest.job
    hashed = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    rows = max(1, CHUNK // max(1, data[0:1].nbytes))
    for start in range(0, len(data), rows):
        hashed.update(_bytes(data[start : start + rows]))
    return hashed.hexdigest()[:16]


def _bytes(rows: Any) -> Any:
    if isinstance(rows, torch.Tensor):
        rows = rows.resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
