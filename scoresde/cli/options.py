r"""The options that commands share, and their reports."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

Model = Annotated[
    str,
    typer.Argument(
        help="An embedded model, such as digits; a file or folder; or your own code, which is run: "
        "file.py:model or package.module:model."
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import and run code that the model's file names."),
]
Dtype = Annotated[
    str | None, typer.Option(help="Dtype of the weights: float64, float32, bfloat16 or float16.")
]
SolverName = Annotated[str | None, typer.Option("--solver", help="See `scoresde solvers`.")]
Steps = Annotated[int | None, typer.Option(help="Number of steps (intervals of the grid).")]
Grid = Annotated[
    str | None,
    typer.Option(
        help="rho, log_snr, tan, asinh, logistic, polyexponential, t, beta or sgm_uniform; with numbers: rho:5."
    ),
]
SigmaMin = Annotated[float | None, typer.Option(help="Noise level assigned to the data.")]
SigmaMax = Annotated[float | None, typer.Option(help="Noise level of the latents.")]
Levels = Annotated[
    str | None,
    typer.Option(help="Noise levels from high to low, separated by commas, instead of steps."),
]
MaxCalls = Annotated[
    int | None,
    typer.Option(help="Network calls per sample, at most; `scoresde resume` goes on from there."),
]
NoiseLevels = Annotated[
    str | None,
    typer.Option(
        help="Noise levels from that of the prior down, with commas between them, instead of steps."
    ),
]
Rtol = Annotated[float | None, typer.Option(help="Relative tolerance, instead of steps.")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance, instead of steps.")]
Eta = Annotated[float | None, typer.Option(help="Noise: 0 for the flow, 1 for the SDE.")]
Seed = Annotated[int, typer.Option(help="Seed of initial state, noise and probes.")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="A plan file, instead of solver and steps.")
]
Label = Annotated[
    str | None, typer.Option(help="The class, or one per sample, separated by commas.")
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE",
        help="Another condition: a number, several separated by commas, or an npy file.",
    ),
]
Guidance = Annotated[
    str | None,
    typer.Option(help="The scale of classifier-free guidance, or a name: see docs/guidance.md."),
]
Batch = Annotated[int | None, typer.Option("--batch-size", help="Samples at once.")]
Out = Annotated[Path | None, typer.Option(help="File to write: npz, npy or png.")]
Data = Annotated[Path, typer.Option(help="File to read: npz with x, npy, or png tiles.")]
Workers = Annotated[
    str | None,
    typer.Option(help="Processes, or ray, or ray://HOST:PORT; --out is then a folder."),
]
ShardSize = Annotated[
    int | None, typer.Option(help="Samples of a shard, where --out is a folder.")
]
Status = Annotated[
    bool, typer.Option("--status", help="Print how far the job in the folder --out is, and end.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
N = TypeVar("N", int, float)
WIDE = 10_000  # characters per line: wider than any table


def said(**options: Any) -> dict[str, Any]:
    r"""Returns the options that the user gave, as keywords to pass on."""

    return {name: value for name, value in options.items() if value is not None}


def numbers_in(name: str, text: str, kind: Callable[[str], N]) -> list[N]:
    r"""Returns the numbers of an option, which are separated by commas."""

    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--{name} must be numbers separated by commas, but is {text!r}."
        ) from None


def levels_in(text: str | None) -> list[float] | None:
    r"""Returns the noise levels of an option, if the user gave it."""

    return None if text is None else numbers_in("levels", text, float)


def call_range(calls: torch.Tensor) -> int | list[int]:
    r"""Returns the number of calls, or the smallest and the largest."""

    low, high = int(calls.min()), int(calls.max())
    return low if low == high else [low, high]


def report(values: Mapping[str, object], as_json: bool) -> None:
    r"""Prints the result."""

    if as_json:
        typer.echo(json.dumps(_plain(values), indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        if value is not None:
            shown = (
                f"{value:.5g}"
                if isinstance(value, float | complex)
                else json.dumps(value)
                if isinstance(value, dict)
                else str(value)
            )
            table.add_row(name, shown)
    print_table(table)


def print_table(table: Table) -> None:
    r"""Prints a table without cuts: within the width of a terminal, and elsewhere as wide as the table is."""

    console = Console()
    for column in table.columns:
        column.overflow = "fold"
    if not console.is_terminal:
        whole = console.options.update(width=WIDE)
        console = Console(width=max(console.width, Measurement.get(console, whole, table).maximum))
    console.print(table)


def _plain(value: object) -> object:
    r"""The same without NaN, infinities and complex numbers, which JSON does not know."""

    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, complex):
        return [_plain(value.real), _plain(value.imag)]
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(rows: Sequence[Mapping[str, object]]) -> None:
    r"""Prints rows with the same entries as a table."""

    table = Table(*rows[0], box=None)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    print_table(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:g}" if isinstance(value, float) else str(value)
