r"""The results of a job, read from its folder."""

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ..files import replacing
from .manifest import FILE, Manifest
from .shards import FOLDER, Shard, name_of, number_in, unpacked
from .store import Store

SHOWN = 8  # numbers of shards in a message


@dataclass(frozen=True)
class Progress:
    r"""Creates the state of a job.

    Arguments:
        verb: The name of the function.
        samples: The number of samples whose results are there.
        count: The number of samples of the job.
        failed: How many of the finished ones failed.
        aside: The shards that were set aside, with the reasons.
        running: Whether a run works on it now.

    Examples:
        >>> ss.jobs.sample(model, 4, out=folder / "state", steps=4, progress=False).progress().samples
        4
    """

    verb: str
    samples: int
    count: int
    failed: int
    aside: dict[int, str]
    running: bool


class Folder:
    r"""Creates the results of a job; each shard is read when it is needed, and its digest verified.

    Arguments:
        out: The path or URL of the folder.

    Raises:
        FileNotFoundError: If there is no job.

    Examples:
        >>> done = ss.jobs.sample(model, 6, out=folder / "job", shard_size=2, steps=4, progress=False)
        >>> done
        Folder(6 of 6 samples by sample)
        >>> done.tensor("x").shape, [shard.count for shard in done.shards()]
        (torch.Size([6, 2]), [2, 2, 2])
        >>> done.table()["calls"]
        [5, 5, 5, 5, 5, 5]
    """

    def __init__(self, out: str | Path) -> None:
        self.store = Store(str(out))

    @cached_property
    def manifest(self) -> Manifest:
        r"""What the job is."""

        found = Manifest.read(self.store)
        if found is None:
            raise FileNotFoundError(f"there is no job in {self.store.url}: it has no {FILE}.")
        return found

    def __len__(self) -> int:
        return self.manifest.count

    def __repr__(self) -> str:
        state = self.progress()
        failed = f", {state.failed} of them failed" if state.failed else ""
        return f"Folder({state.samples} of {state.count} samples by {state.verb}{failed})"

    @property
    def finished(self) -> list[int]:
        r"""The numbers of the shards that are there."""

        found = (number_in(name) for name in self.store.names(FOLDER))
        return [number for number in found if number is not None]

    def progress(self) -> Progress:
        r"""Returns how far the job is, whether a run works on it or not."""

        known = Manifest.read(self.store) or self.manifest
        samples = sum(known.range(number)[1] for number in self.finished if number < known.shards)
        aside = {int(number): words for number, words in known.aside.items()}
        failed = sum(known.failed.values())
        return Progress(known.verb, samples, known.count, failed, aside, self.store.is_driven())

    def shards(self) -> Iterator[Shard]:
        r"""Yields the finished shards in the order of the samples.

        Raises:
            ValueError: If one is damaged, or belongs to another job.
        """

        for number in self.finished:
            yield self.shard(number)

    @checked
    def shard(self, number: int) -> Shard:
        r"""Returns one shard.

        Arguments:
            number: Its number.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it is damaged, or belongs to another job.
        """

        name = name_of(number)
        content = self.store.read(name)
        if content is None:
            raise FileNotFoundError(f"number={number}: {self.store.url}/{name} is not there.")
        return expected(
            unpacked(content, f"{self.store.url}/{name}"), number, self.manifest, self.store
        )

    @checked
    def tensor(self, name: str = "x") -> Tensor:
        r"""Returns the results of all samples, such as "x" or "nats", with shape (N, *).

        Raises:
            ValueError: If samples are missing.
        """

        self._check_whole()
        parts = [self._named(shard, name) for shard in self.shards()]
        return torch.cat(parts)

    def table(self) -> dict[str, list[Any]]:
        r"""Returns the numbers of all samples by name, with the causes of failures, for data frames and files.

        Raises:
            ValueError: If samples are missing.
        """

        self._check_whole()
        columns: dict[str, list[Any]] = {}
        for row in self._rows():
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        return columns

    @checked
    def save_table(self, file: str | Path) -> None:
        r"""Writes the table shard by shard, as CSV or, with pyarrow, as Parquet.

        Arguments:
            file: A csv or parquet file.
        """

        file = Path(file)
        if file.suffix not in (".csv", ".parquet"):
            raise ValueError(f"a table needs a csv or parquet file, not {file.name}.")
        self._check_whole()
        rows = self._rows()
        first = next(rows)
        with replacing(file) as part:
            write = _write_csv if file.suffix == ".csv" else _write_parquet
            write(part, list(first), itertools.chain([first], rows), self.manifest.shard_size)

    @property
    def failed(self) -> dict[int, str]:
        r"""The causes of failures by the index of the sample."""

        return {index: cause for shard in self.shards() for index, cause in shard.failed.items()}

    def _rows(self) -> Iterator[dict[str, Any]]:
        for shard in self.shards():
            numbers = {n: v.tolist() for n, v in shard.tensors.items() if v.ndim == 1}
            for row in range(shard.count):
                index = shard.start + row
                status = shard.failed.get(index, "ok")
                yield {"index": index, "status": status, **{n: v[row] for n, v in numbers.items()}}

    def _named(self, shard: Shard, name: str) -> Tensor:
        if name not in shard.tensors:
            raise ValueError(
                f"the job has no {name!r}; it has {', '.join(sorted(shard.tensors))}."
            )
        return shard.tensors[name]

    def _check_whole(self) -> None:
        missing = sorted(set(range(self.manifest.shards)) - set(self.finished))
        if missing:
            few = ", ".join(map(str, missing[:SHOWN])) + (
                " and others" if len(missing) > SHOWN else ""
            )
            raise ValueError(
                f"{self.store.url} lacks the shards {few} of {self.manifest.shards}; run the job again to go "
                "on, or read what is there with shards()."
            )


@checked
def open(out: str | Path) -> Folder:
    r"""Returns the results of a job, finished or not.

    Arguments:
        out: The path or URL of its folder.

    Raises:
        FileNotFoundError: If there is no job.

    Examples:
        >>> ss.jobs.sample(model, 4, out=folder / "draws", steps=4, progress=False)
        Folder(4 of 4 samples by sample)
        >>> ss.jobs.open(folder / "draws").tensor().shape
        torch.Size([4, 2])
    """

    found = Folder(out)
    found.manifest  # noqa: B018
    return found


def expected(shard: Shard, number: int, manifest: Manifest, store: Store) -> Shard:
    r"""Returns a shard that is the given one of a job.

    Raises:
        ValueError: If it is another one.
    """

    where = f"{store.url}/{name_of(number)}"
    if shard.job != manifest.job or (shard.number, shard.start, shard.count) != (
        number,
        *manifest.range(number),
    ):
        raise ValueError(f"{where} belongs to another job; remove it, and run the job again.")
    known = manifest.done.get(str(number), shard.digest)
    if known != shard.digest:
        raise ValueError(
            f"{where} is not the file that the job wrote: its digest is another; remove it, and run the job again."
        )
    return shard


def _write_csv(file: Path, names: list[str], rows: Iterator[dict[str, Any]], _: int) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, names)
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(
    file: Path, names: list[str], rows: Iterator[dict[str, Any]], size: int
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = list(itertools.islice(rows, size))
    schema = pa.Table.from_pylist(first).select(names).schema
    with pq.ParquetWriter(file, schema) as writer:
        while first:
            writer.write_table(pa.Table.from_pylist(first, schema))
            first = list(itertools.islice(rows, size))
