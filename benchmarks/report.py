r"""Results: one CSV file a benchmark, and how each was run in `runs.json`."""

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
RUNS = "runs.json"  # by benchmark: the command, the machine and the settings
DIGITS = 4
WORDS = {"": None, "True": True, "False": False}
Row = dict[str, Any]


def save(name: str, rows: Sequence[Mapping[str, Any]], **settings: Any) -> None:
    r"""Writes the rows of a benchmark and how it was run, and prints those that have the first one's columns."""

    write(name, rows, {"command": f"python -m benchmarks.{name}", **machine(), **settings})
    show([row for row in rows if row.keys() == rows[0].keys()])


def machine() -> Row:
    r"""Returns what the figures of a run may depend on."""

    threads = torch.get_num_threads()
    return {"torch": torch.__version__, "threads": threads, "cpu": platform.machine()}


def write(name: str, rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> None:
    r"""Writes `NAME.csv`, with the columns of all rows, and the line of the benchmark in `runs.json`."""

    RESULTS.mkdir(exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([cell(row.get(column)) for column in columns] for row in rows)
    known = sorted({**(runs() if (RESULTS / RUNS).exists() else {}), name: dict(run)}.items())
    entries = ",\n".join(f" {json.dumps(name)}: {json.dumps(run)}" for name, run in known)
    (RESULTS / RUNS).write_text(f"{{\n{entries}\n}}\n")


def load(name: str) -> list[Row]:
    r"""Returns the rows of a benchmark, all with the same columns, of which empty ones are None."""

    with (RESULTS / f"{name}.csv").open(newline="") as file:
        return [
            {column: value(text) for column, text in row.items()} for row in csv.DictReader(file)
        ]


def runs() -> dict[str, dict[str, Any]]:
    r"""Returns how each benchmark was run, by its name."""

    return json.loads((RESULTS / RUNS).read_text())


def cell(value: Any) -> str:
    r"""Writes a value: floats with four digits and a point, so that they are read as such, lists with spaces."""

    if isinstance(value, float):
        digits = f"{value:.{DIGITS}g}"
        return digits if set(digits) & set(".en") else f"{digits}.0"
    if isinstance(value, list | tuple):
        return " ".join(cell(entry) for entry in value)
    return "" if value is None else str(value)


def value(text: str) -> Any:
    r"""Reads a cell: nothing, a truth, a number or words."""

    if text in WORDS:
        return WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(text(value) for value in row.values()))
    Console(width=140).print(table)


def text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
