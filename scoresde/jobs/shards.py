r"""The shards of a job: ranges of samples, each computed in one batch and kept in one file.

A file holds tensors, whose first dimension is that of the samples, and JSON text. It is in the format of
safetensors, so that nothing in it is executed, and contains the digest of its content.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FOLDER, SUFFIX = "shards", ".safetensors"
VERSION = 1  # of the form of a file


@dataclass(frozen=True)
class Shard:
    r"""Creates the content of a finished shard.

    Arguments:
        job: The identity of its job.
        number: The number of the shard.
        start: The index of its first sample.
        count: The number of samples.
        pieces: The number of batches in which it was computed: more than one where memory did not suffice.
        tensors: The results by name, with shapes (count, *).
        failed: The causes of failures by the index of the sample.
        made: How the samples were made: the provenance and the times of the solution.
    """

    job: str
    number: int
    start: int
    count: int
    pieces: int
    tensors: Mapping[str, Tensor]
    failed: Mapping[int, str] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, Any]:
        r"""Everything but the tensors, as JSON knows it."""

        names = ("job", "number", "start", "count", "pieces", "made")
        known = {name: getattr(self, name) for name in names}
        failed = {str(index): cause for index, cause in sorted(self.failed.items())}
        return {"version": VERSION, **known, "failed": failed}

    @property
    def digest(self) -> str:
        r"""The digest of the content."""

        hashed = hashlib.sha256(json.dumps(self.said, sort_keys=True).encode())
        for name, value in sorted(self.tensors.items()):
            hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            hashed.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return hashed.hexdigest()

    def pack(self) -> bytes:
        r"""Returns the content of the file."""

        said = json.dumps({**self.said, "digest": self.digest}, sort_keys=True)
        return save({n: v.contiguous() for n, v in self.tensors.items()}, {"shard": said})


def name_of(number: int) -> str:
    r"""Returns the file of a shard."""

    return f"{FOLDER}/{number:07d}{SUFFIX}"


def number_in(name: str) -> int | None:
    r"""Returns the number of the shard in a file of this name, or `None` if it is no shard."""

    stem, _, suffix = name.partition(".")
    return int(stem) if f".{suffix}" == SUFFIX and stem.isdigit() else None


def unpacked(content: bytes, where: str) -> Shard:
    r"""Returns the shard in the content of a file, after a check of its digest.

    Arguments:
        content: The content.
        where: The file, for messages.

    Raises:
        ValueError: If the file is damaged, or of another version.
    """

    cure = "remove it, and run the job again to compute it anew"
    try:
        (length,) = struct.unpack("<Q", content[:8])
        said = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["shard"])
        tensors = load(content)
        version, digest = said.pop("version"), said.pop("digest")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        raise ValueError(f"{where} is damaged: it is no shard of a job; {cure}.") from None
    if version != VERSION:
        raise ValueError(
            f"{where} has the form of version {version} of shards, but this is version {VERSION}; read it with "
            "the scoresde that wrote it, or pass another folder."
        )
    failed = {int(index): cause for index, cause in said.pop("failed").items()}
    shard = Shard(**said, tensors=tensors, failed=failed)
    if shard.digest != digest:
        raise ValueError(
            f"{where} is damaged: its content does not have the digest that it states; {cure}."
        )
    return shard
