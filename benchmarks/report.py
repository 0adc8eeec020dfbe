r"""Results as JSON and as tables."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def save(name: str, rows: Sequence[Mapping[str, Any]], **notes: Any) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": platform.machine(),
    }
    content = {
        "command": f"python -m benchmarks.{name}",
        "machine": machine,
        **notes,
        "rows": list(rows),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    show([row for row in rows if row.keys() == rows[0].keys()])


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(text(value) for value in row.values()))
    Console(width=140).print(table)


def text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
