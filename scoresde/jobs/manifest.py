r"""What a job is, and how far it has come: the file `manifest.json` in its folder."""

import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..doors.warning import warn
from ..files import Entry, Json, check_entries, each, mapping, or_none, text, whole
from ..runs.identity import identity
from .store import Store

FILE, KIND = "manifest.json", "job of scoresde"


def _positive(value: object) -> bool:
    return whole(value) and value > 0


def _by_shard(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: mapping(value) and each(fits)(value) and all(map(str.isdigit, value))


ENTRIES = {
    "verb": Entry("the name of a function", text),
    "count": Entry("a number of samples", _positive),
    "shard_size": Entry("a number of samples", _positive),
    "seed": Entry("a seed", lambda value: isinstance(value, int)),
    "model": Entry("facts about a model", mapping),
    "options": Entry("options by name", mapping),
    "data": Entry("the digest of data, or null", or_none(text)),
    "dtype": Entry("the name of a dtype", text),
    "noise_version": Entry("a version", lambda value: True),
    "threads": Entry("a number of threads", _positive),
    "machine": Entry("facts about a machine", mapping),
    "versions": Entry("versions by name", mapping),
    "pieces": Entry("numbers of batches by shard", _by_shard(_positive)),
    "done": Entry("digests by shard", _by_shard(text)),
    "failed": Entry("numbers of samples by shard", _by_shard(_positive)),
    "aside": Entry("reasons by shard", _by_shard(text)),
}
SAME = (
    "verb",
    "count",
    "shard_size",
    "seed",
    "model",
    "options",
    "data",
    "dtype",
    "noise_version",
)
WORDS = {
    "count": "the number of samples",
    "shard_size": "shard_size=",
    "data": "the digest of the data",
    "dtype": "the default dtype of PyTorch",
    "noise_version": "the version of the noise",
}


@dataclass
class Manifest:
    r"""Creates the manifest of a job.

    Arguments:
        verb: The name of the function.
        count: The number of samples.
        shard_size: The number of samples of a shard; the last one may be smaller.
        seed: The seed.
        model: The names and identities of the models.
        options: The options, as text that identifies them.
        data: The digest of the data.
        dtype: The default dtype of PyTorch.
        noise_version: The version of the keyed noise.
        threads: The number of threads of each process, on which the bits of a network's result may depend.
        machine: The machine, on which they may depend too.
        versions: The versions of the libraries.
        pieces: In how many batches a shard is computed, where that is more than one.
        done: The digests of the finished shards.
        failed: The number of failed samples of the finished shards that have some.
        aside: Why a shard was set aside.
    """

    verb: str
    count: int
    shard_size: int
    seed: int
    model: Json
    options: Json
    data: str | None
    dtype: str
    noise_version: Any
    threads: int
    machine: Json
    versions: Json
    pieces: dict[str, int] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)

    @property
    def job(self) -> str:
        r"""The identity of the job, which all of its shards state."""

        return identity([getattr(self, name) for name in SAME])

    @property
    def shards(self) -> int:
        r"""The number of shards."""

        return math.ceil(self.count / self.shard_size)

    def range(self, number: int) -> tuple[int, int]:
        r"""Returns the first sample of a shard, and the number of its samples."""

        start = number * self.shard_size
        return start, min(self.shard_size, self.count - start)

    def save(self, store: Store) -> None:
        r"""Writes the file."""

        known = {name: getattr(self, name) for name in ENTRIES}
        content = {"kind": KIND, "job": self.job, **known}
        store.write(FILE, (json.dumps(content, indent=1) + "\n").encode())

    @staticmethod
    def read(store: Store) -> "Manifest | None":
        r"""Returns the manifest in a folder, or `None` if there is none.

        Raises:
            ValueError: If the file is damaged.
        """

        content = store.read(FILE)
        if content is None:
            return None
        try:
            known = json.loads(content)
        except ValueError:
            known = None
        if not isinstance(known, dict) or known.pop("kind", None) != KIND:
            raise ValueError(
                f"{store.url}/{FILE} is no manifest of a job; pass another folder as out=."
            )
        job = known.pop("job", None)
        try:
            check_entries(known, ENTRIES)
            found = Manifest(**known)
            if found.job != job:
                raise ValueError(f"what it says is not of the job {job!r}")
        except ValueError as error:
            raise ValueError(
                f"{store.url}/{FILE} is damaged or was edited: {error}; remove it, and run the job again, which "
                "keeps all shards."
            ) from None
        return found

    def going_on(self, store: Store) -> "Manifest":
        r"""Returns the manifest of the job so far, which has to be the same job.

        Arguments:
            store: The folder.

        Raises:
            ValueError: If the folder holds another job.
        """

        known = Manifest.read(store)
        if known is None:
            return self
        for name in SAME:
            _check_same(store.url, name, getattr(known, name), getattr(self, name))
        before, now = known._surroundings, self._surroundings
        other = [
            f"{key} {before.get(key)} (now {now[key]})"
            for key in now
            if before.get(key) != now[key]
        ]
        if other:
            warn(
                f"the job in {store.url} began with {', '.join(other)}, so its bits may differ from here on."
            )
        return replace(known, aside={})

    @property
    def _surroundings(self) -> Json:
        return {"threads": self.threads, **self.machine, **self.versions}


def _check_same(url: str, name: str, before: Any, now: Any) -> None:
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        key = next(k for k in {**before, **now} if before.get(k) != now.get(k))
        what = f"{key}=" if name == "options" else f"the {key}"
        before, now = before.get(key, "not passed"), now.get(key, "not passed")
    else:
        what = WORDS.get(name, f"the {name}")
    raise ValueError(
        f"{url} holds another job: {what} was {before}, but is {now}; pass another folder, or what the job began "
        "with to go on."
    )


def machine() -> Json:
    r"""Returns what bits may depend on besides the job and its threads."""

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                name,
            )
    devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    precision = torch.get_float32_matmul_precision()
    return {
        "system": platform.system(),
        "processor": name,
        "accelerators": devices,
        "precision of products": precision,
    }
