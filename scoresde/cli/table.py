r"""A table that is saved as it grows, and continued after an interruption."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ..likelihood.advice import PARTS as NAMES
from ..models.score_model import ScoreModel
from ..runs.continued import check_same

MEASURED = ("nats", "bits_per_dim")  # columns whose means have standard errors
PARTS = {part: "stderr" if part == "probes" else part for part in NAMES}  # their columns
WHOLE = ("index", "calls", "products")  # columns of whole numbers
Row = dict[str, float | int]


class Column:
    r"""Creates the sums of a column, from which its mean and standard error follow."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        r"""Adds an entry."""

        self.count, self.total, self.square = (
            self.count + 1,
            self.total + value,
            self.square + value**2,
        )

    @property
    def mean(self) -> float:
        r"""The mean."""

        return self.total / self.count

    @property
    def error(self) -> float:
        r"""The standard error of the mean, or NaN for a single entry."""

        if self.count < 2:
            return math.nan
        return math.sqrt(max(self.square / self.count - self.mean**2, 0.0) / (self.count - 1))


class Table:
    r"""Creates a table whose rows are written to disk as soon as they are known.

    Arguments:
        file: A csv file, or `None`. If it already has rows, the table continues after them.
        setup: The settings that the rows depend on; a file with another setup is refused.
        model: The model.
    """

    def __init__(self, file: Path | None, setup: Mapping[str, object], model: ScoreModel) -> None:
        if file is not None and file.suffix != ".csv":
            raise ValueError(f"--out must end in .csv, a table of all samples, not {file.name!r}.")
        self.file, self.head = file, "# " + json.dumps(setup, sort_keys=True)
        self.columns: dict[str, Column] = {}
        self.cures: dict[str, str] = {}  # cures for parts of the error, from the rows
        self.handle: TextIO | None = None
        self.done = self.size = 0
        if file is not None and file.exists():
            self._read(file, file.read_text(), model)

    def __enter__(self) -> "Table":
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.handle = self.file.open("a", newline="")
            _lock(self.handle, self.file)
            self.handle.truncate(self.size)  # an interrupted row is removed
            if not self.size:
                self.handle.write(self.head + "\n")
                self.handle.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            self.handle.close()

    def add(self, row: Row) -> None:
        r"""Adds a row, also to the file."""

        if self.handle is not None:
            writer = csv.DictWriter(self.handle, list(row), lineterminator="\n")
            if not self.done:
                writer.writeheader()
            writer.writerow(row)
            self.handle.flush()
        self._count(row)

    @property
    def summary(self) -> Row:
        r"""The means of the columns, with the standard errors of measured ones."""

        found: Row = {"samples": self.done}
        for name, column in self.columns.items():
            found[name] = column.mean
            if name in MEASURED:
                found[f"{name}, error of the mean"] = column.error
        return found

    @property
    def advice(self) -> str | None:
        r"""The largest part of the error on average, and what makes it smaller."""

        means = {
            part: self.columns[name].mean for part, name in PARTS.items() if name in self.columns
        }
        known = {part: mean for part, mean in means.items() if mean == mean}
        if not known:
            return None
        part = max(known, key=lambda part: known[part])
        cure = f": {self.cures[part]}" if part in self.cures else ""
        return f"{part} is the largest part of the error, {known[part]:.2g} nats{cure}"

    @property
    def words(self) -> str:
        r"""The running means of the measured columns, and their errors."""

        name = [name for name in MEASURED if name in self.columns][-1]
        return f"{name} {self.columns[name].mean:.4g} +- {self.columns[name].error:.2g}"

    def _checked(self, number: int, row: dict[str, str]) -> Row:
        try:
            values: Row = {name: float(value) for name, value in row.items()}
            if values["index"] != number:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{self.file} is damaged in line {number + 3}, which should hold the numbers of sample {number}: "
                "remove that line and all after it, and the run continues there."
            ) from None
        return values

    def _count(self, row: Row) -> None:
        self.done += 1
        for name, value in row.items():
            if name != "index":
                self.columns.setdefault(name, Column()).add(float(value))

    def _read(self, file: Path, text: str, model: ScoreModel) -> None:
        if "\n" not in text and self.head.startswith(text):
            return  # from a run that was stopped before its first row
        head, *lines = text.split("\n")[:-1]  # an unfinished last line was cut off
        before, now = _settings(file, head), _settings(file, self.head)
        check_same(file, "table", before, now, model)
        for number, row in enumerate(csv.DictReader(lines)):
            self._count(self._checked(number, row))
        lines = lines if self.done else []  # a header without rows is written again
        self.size = sum(len(line.encode()) + 1 for line in (head, *lines))


def _settings(file: Path, head: str) -> dict[str, object]:
    r"""The settings in a header."""

    try:
        return dict(json.loads(head.removeprefix("# ")))
    except (ValueError, TypeError):
        raise ValueError(f"{file} holds another table; pass another file, or remove it.") from None


def _lock(handle: TextIO, file: Path) -> None:
    r"""Refuses a file that another run is writing, if the system can tell."""

    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(
            f"{file} is being written by another run; wait, or pass another file."
        ) from None
