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
PAIRS = ".pairs"  # ends the name of complex numbers that are kept as pairs of real ones
DAMAGE = (struct.error, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


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
        return {"version": VERSION, **known, "failed": failed, "names": list(self.tensors)}

    @property
    def digest(self) -> str:
        r"""The digest of the content."""

        hashed = hashlib.sha256(json.dumps(self.said, sort_keys=True).encode())
        for name, value in sorted(self.tensors.items()):
            hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            hashed.update(
                value.resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
        return hashed.hexdigest()

    def pack(self) -> bytes:
        r"""Returns the content of the file."""

        said = json.dumps({**self.said, "digest": self.digest}, sort_keys=True)
        return save(_parts(self.tensors), {"shard": said})


def name_of(number: int) -> str:
    r"""Returns the file of a shard."""

    return f"{FOLDER}/{number:07d}{SUFFIX}"


def number_in(name: str) -> int | None:
    r"""Returns the number of the shard in a file of this name, or `None` if it is no shard."""

    stem, _, _ = name.partition(".")
    known = stem.isascii() and stem.isdigit() and name_of(int(stem)).endswith(f"/{name}")
    return int(stem) if known else None


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
        said, tensors = _said(content), load(content)
        version, digest = said.pop("version"), said.pop("digest")
    except DAMAGE:
        raise ValueError(f"{where} is damaged: it is no shard of a job; {cure}.") from None
    if version != VERSION:
        raise ValueError(
            f"{where} has the form of version {version} of shards, but this is version {VERSION}; read it with "
            "the scoresde that wrote it, or pass another folder."
        )
    try:
        failed = {int(index): cause for index, cause in said.pop("failed").items()}
        names, parts = said.pop("names"), _whole(tensors)
        shard = Shard(**said, tensors={name: parts[name] for name in names}, failed=failed)
        intact = shard.digest == digest
    except DAMAGE:
        intact = False
    if not intact:
        raise ValueError(
            f"{where} is damaged: its content does not have the digest that it states; {cure}."
        )
    return shard


def _said(content: bytes) -> dict[str, Any]:
    r"""What a file says beside its tensors."""

    (length,) = struct.unpack("<Q", content[:8])
    return dict(json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["shard"]))


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Tensors as the format has them: complex numbers of double precision as pairs of real ones."""

    found = {}
    for name, value in tensors.items():
        value, double = value.resolve_conj().contiguous(), value.dtype == torch.complex128
        found[f"{name}{PAIRS * double}"] = torch.view_as_real(value) if double else value
    return found


def _whole(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""The inverse of :func:`_parts`."""

    return {
        name.removesuffix(PAIRS): torch.view_as_complex(value) if name.endswith(PAIRS) else value
        for name, value in parts.items()
    }
