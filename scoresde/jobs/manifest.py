r"""What a job is, and how far it has come: the file `manifest.json` in its folder."""

import json
import math
import os
import platform
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..doors.warning import warn
from ..files import Entry, Json, check_entries, mapping, or_none, text, whole
from ..runs.identity import identity
from .store import Store

FILE, KIND = "manifest.json", "job of scoresde"
ENTRIES = {
    "verb": Entry("the name of a function", text),
    "count": Entry("a number of samples", whole),
    "shard_size": Entry("a number of samples", whole),
    "seed": Entry("a seed, or null", or_none(whole)),
    "model": Entry("facts about a model", mapping),
    "options": Entry("options by name", mapping),
    "data": Entry("the digest of data, or null", or_none(text)),
    "noise_version": Entry("a version", lambda value: True),
    "threads": Entry("a number of threads", whole),
    "machine": Entry("facts about a machine", mapping),
    "versions": Entry("versions by name", mapping),
    **dict.fromkeys(("pieces", "done", "failed", "aside"), Entry("facts by shard", mapping)),
}
SAME = ("verb", "count", "shard_size", "seed", "model", "options", "data", "noise_version")
WORDS = {
    "count": "the number of samples",
    "shard_size": "shard_size=",
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
    seed: int | None
    model: Json
    options: Json
    data: str | None
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

        content = {"kind": KIND, **{name: getattr(self, name) for name in ENTRIES}}
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
        check_entries(known, ENTRIES, f"{store.url}/{FILE}: ")
        return Manifest(**known)

    def going_on(self, store: Store, here: bool) -> "Manifest":
        r"""Returns the manifest of the job so far, which has to be the same job.

        Arguments:
            store: The folder.
            here: Whether this process works, whose threads are what they are.

        Raises:
            ValueError: If the folder holds another job.
        """

        known = Manifest.read(store)
        if known is None:
            return self
        for name in SAME:
            _check_same(store.url, name, getattr(known, name), getattr(self, name))
        before = {**known.machine, **known.versions, "threads": known.threads}
        now = {**self.machine, **self.versions, "threads": self.threads if here else known.threads}
        other = [f"{n} {before.get(n)} (now {now[n]})" for n in now if before.get(n) != now[n]]
        if other:
            warn(
                f"the job in {store.url} began with {', '.join(other)}, so its bits may differ from here on."
            )
        return replace(known, aside={})


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
    return {"system": platform.system(), "processor": name, "accelerators": devices}
