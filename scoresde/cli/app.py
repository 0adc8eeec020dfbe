r"""The commands."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

import solvers

from .. import zoo
from ..sampling import sample as draw
from . import about, latents, likelihood, measure, plot
from .files import check_suffix, write_array
from .guidances import guided
from .options import (
    AsJson,
    Atol,
    Batch,
    Debug,
    Eta,
    Grid,
    Guidance,
    Label,
    Model,
    Out,
    PlanFile,
    Rtol,
    Seed,
    SolverName,
    Steps,
    call_range,
    report,
    said,
)

app = typer.Typer(
    help="Sample, encode, decode, edit and score with a model in a file and any solver.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (latents, about, likelihood, measure, plot):
    app.add_typer(part.app)


def run() -> None:
    r"""Runs the command line; errors are one sentence and exit with 1."""

    try:
        app()
    except (ValueError, TypeError, OSError, ImportError, solvers.SolverError) as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


@app.callback()
def common(debug: Debug = False) -> None:
    r"""Takes the options of all commands."""


@app.command()
def sample(
    model: Model,
    n: Annotated[int, typer.Option("-n", "--number", help="How many samples.")] = 16,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    rtol: Rtol = None,
    atol: Atol = None,
    eta: Eta = None,
    plan: PlanFile = None,
    label: Label = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    first_index: Annotated[int, typer.Option(help="Index of the first sample.")] = 0,
    batch_size: Batch = None,
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Draw samples."""

    if out is not None:
        check_suffix(out)
    options = said(solver=solver, steps=steps, grid=grid, rtol=rtol, atol=atol, eta=eta,
                    plan=plan, batch_size=batch_size)  # fmt: skip
    score = guided(zoo.load(model), label, guidance)
    s = draw(score, n, seed=seed, first_index=first_index, progress=not as_json, **options)
    if out is not None:
        write_array(
            out,
            s.x,
            calls=s.calls.numpy(),
            times=s.times.numpy(),
            provenance=json.dumps(s.provenance),
        )
    report(
        {"samples": n, "calls": call_range(s.calls), "mean": s.x.mean().item(), "std": s.x.std().item(),
         "out": str(out) if out else None, **s.provenance},
        as_json,
    )  # fmt: skip
