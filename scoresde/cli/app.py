r"""The commands."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import solvers

from .. import zoo
from ..editing import edit as edit_data
from ..latents import encode as encode_data
from ..latents import load_latents, save_latents
from ..sampling import decode as decode_latents
from ..sampling import sample as draw
from . import about, likelihood, measure
from .files import check_suffix, read_array, write_array
from .options import (
    AsJson,
    Atol,
    Batch,
    Data,
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
    guided,
    report,
    said,
)

app = typer.Typer(
    help="Sample, encode, decode, edit and score with any model and any solver.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (about, likelihood, measure):
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


@app.command()
def encode(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="File for the latents: npz.")],
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    rtol: Rtol = None,
    atol: Atol = None,
    label: Label = None,
    batch_size: Batch = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Turn data into latents."""

    options = said(
        solver=solver, steps=steps, grid=grid, rtol=rtol, atol=atol, batch_size=batch_size
    )
    score = guided(zoo.load(model), label, None)
    z = encode_data(score, read_array(data, score)[0], progress=not as_json, **options)
    save_latents(out, z)
    report({"samples": len(z.x), "calls": call_range(z.calls), "std": z.x.std().item(),
             "out": str(out)}, as_json)  # fmt: skip


@app.command()
def decode(
    model: Model,
    data: Data,
    out: Out = None,
    label: Label = None,
    guidance: Guidance = None,
    denoise: Annotated[bool, typer.Option(help="End with one denoising.")] = True,
    batch_size: Batch = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Turn the latents of `scoresde encode` into data."""

    if out is not None:
        check_suffix(out)
    options = said(batch_size=batch_size)
    score = guided(zoo.load(model), label, guidance)
    s = decode_latents(score, load_latents(data), denoise=denoise, progress=not as_json, **options)
    if out is not None:
        write_array(out, s.x, calls=s.calls.numpy())
    report(
        {"samples": len(s.x), "calls": call_range(s.calls), "out": str(out) if out else None},
        as_json,
    )


@app.command()
def edit(
    model: Model,
    data: Data,
    target: Annotated[int, typer.Option(help="The class that data shall be of.")],
    source: Annotated[int | None, typer.Option(help="The class that data is of.")] = None,
    noise_level: Annotated[float | None, typer.Option(help="How far up, as sigma/alpha.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far up, in (0, 1].")] = None,
    method: Annotated[str, typer.Option(help="encode or noise.")] = "encode",
    guidance: Guidance = None,
    solver: SolverName = None,
    steps: Steps = None,
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Turn data of one class into data of another."""

    if out is not None:
        check_suffix(out)
    score = zoo.load(model)
    options = said(
        solver=solver,
        steps=steps,
        rtol=rtol,
        atol=atol,
        noise_level=noise_level,
        strength=strength,
        method=method,
    )
    x, _ = read_array(data, score)
    e = edit_data(
        guided(score, source, None), guided(score, target, guidance), x,
        seed=seed, progress=not as_json, **options,
    )  # fmt: skip
    if out is not None:
        write_array(out, e.x, calls=e.calls.numpy())
    change = (e.x - x).square().mean().sqrt().item()
    report({"samples": len(x), "calls": call_range(e.calls), "rms change": change,
             "out": str(out) if out else None}, as_json)  # fmt: skip
