r"""The commands."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

import solvers
from solvers.catalogue import REFUSED, describe

from .. import guidance, zoo
from ..editing import edit as edit_data
from ..latents import encode as encode_data
from ..likelihood import bits_per_dim, log_likelihood
from ..likelihood import dequantize as add_noise
from ..models import ScoreModel
from ..sampling import decode as decode_latents
from ..sampling import sample as draw
from .files import check_suffix, read_array, read_latents, write_array, write_latents

app = typer.Typer(
    help="Sample, encode, decode, edit and score with any model and any solver.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
Model = Annotated[
    str, typer.Argument(help="An embedded model, such as digits, or a file or folder.")
]
SolverName = Annotated[str | None, typer.Option("--solver", help="See `scoresde solvers`.")]
Steps = Annotated[int | None, typer.Option(help="Intervals of the grid.")]
Grid = Annotated[str | None, typer.Option(help="rho, log_snr, tan, asinh or t.")]
Rtol = Annotated[float | None, typer.Option(help="Relative tolerance, instead of steps.")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance, instead of steps.")]
Eta = Annotated[float | None, typer.Option(help="Noise: 0 for the flow, 1 for the SDE.")]
Seed = Annotated[int, typer.Option(help="Seed of start, noise and probes.")]
Label = Annotated[int | None, typer.Option(help="Condition: the class.")]
Guidance = Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")]
Batch = Annotated[int | None, typer.Option("--batch-size", help="Samples at once.")]
Out = Annotated[Path | None, typer.Option(help="File to write: npz, npy or png.")]
Data = Annotated[Path, typer.Option(help="File to read: npz with x, npy, or png tiles.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


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
    options = _said(solver=solver, steps=steps, grid=grid, rtol=rtol, atol=atol, eta=eta,
                    batch_size=batch_size)  # fmt: skip
    score = _guided(zoo.load(model), label, guidance)
    s = draw(score, n, seed=seed, first_index=first_index, progress=not as_json, **options)
    if out is not None:
        write_array(
            out,
            s.x,
            calls=s.calls.numpy(),
            times=s.times.numpy(),
            provenance=json.dumps(s.provenance),
        )
    _report(
        {"samples": n, "calls": _range(s.calls), "mean": s.x.mean().item(), "std": s.x.std().item(),
         "out": str(out) if out else None, **s.provenance},
        as_json,
    )  # fmt: skip


@app.command()
def likelihood(
    model: Model,
    data: Data,
    levels: Annotated[int | None, typer.Option(help="Levels, for bits per dimension.")] = None,
    low: Annotated[float, typer.Option(help="Value of the lowest level.")] = -1.0,
    high: Annotated[float, typer.Option(help="Value of the highest level.")] = 1.0,
    dequantize: Annotated[bool, typer.Option(help="Add uniform noise of one bin.")] = True,
    probes: Annotated[int | None, typer.Option(help="Probes; exact by default.")] = None,
    solver: SolverName = None,
    steps: Steps = None,
    rtol: Rtol = None,
    atol: Atol = None,
    label: Label = None,
    use_labels: Annotated[bool, typer.Option(help="Condition on the file's labels.")] = False,
    seed: Seed = 0,
    batch_size: Batch = 128,
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Score data: nats per sample, and bits per dimension of integer data."""

    score = zoo.load(model)
    x, labels = read_array(data, score)
    if use_labels and labels is None:
        raise ValueError(f"{data} has no entry 'label' to condition on.")
    condition = {"label": labels} if use_labels else _said(label=label)
    if levels is not None and dequantize:
        x = add_noise(x, levels=levels, low=low, high=high, seed=seed)
    options = _said(solver=solver, steps=steps, rtol=rtol, atol=atol, probes=probes)
    size = batch_size or len(x)
    found = log_likelihood(
        score, x, seed=seed, batch_size=size, progress=not as_json, **condition, **options
    )
    arrays = {"nats": found.nats, "stderr": found.stderr}
    if levels is not None:
        arrays["bits_per_dim"] = bits_per_dim(found, levels=levels, low=low, high=high)
    if out is not None:
        write_array(out, found.latent, **{name: value.numpy() for name, value in arrays.items()})
    summary: dict[str, Any] = {"samples": len(x), "calls": _range(found.calls)}
    for name, value in arrays.items():
        summary[name] = value.mean().item()
        if name != "stderr" and len(x) > 1:
            summary[f"{name} +-"] = (value.std() / len(x) ** 0.5).item()
    _report({**summary, "noise level": found.noise_level, "derivatives": int(found.derivatives[0]),
             "out": str(out) if out else None}, as_json)  # fmt: skip


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

    options = _said(
        solver=solver, steps=steps, grid=grid, rtol=rtol, atol=atol, batch_size=batch_size
    )
    score = _guided(zoo.load(model), label, None)
    z = encode_data(score, read_array(data, score)[0], progress=not as_json, **options)
    write_latents(out, z)
    _report({"samples": len(z.x), "calls": _range(z.calls), "std": z.x.std().item(),
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
    options = _said(batch_size=batch_size)
    score = _guided(zoo.load(model), label, guidance)
    s = decode_latents(score, read_latents(data), denoise=denoise, progress=not as_json, **options)
    if out is not None:
        write_array(out, s.x, calls=s.calls.numpy())
    _report(
        {"samples": len(s.x), "calls": _range(s.calls), "out": str(out) if out else None}, as_json
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
    options = _said(
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
        _guided(score, source, None), _guided(score, target, guidance), x,
        seed=seed, progress=not as_json, **options,
    )  # fmt: skip
    if out is not None:
        write_array(out, e.x, calls=e.calls.numpy())
    change = (e.x - x).square().mean().sqrt().item()
    _report({"samples": len(x), "calls": _range(e.calls), "rms change": change,
             "out": str(out) if out else None}, as_json)  # fmt: skip


@app.command("solvers")
def list_solvers(as_json: AsJson = False, debug: Debug = False) -> None:
    r"""List all solvers: what they solve, order, cost."""

    rows = [describe(solvers.get(name)) for name in solvers.available()]
    if as_json:
        typer.echo(json.dumps({"solvers": rows, "refused": REFUSED}, indent=2))
        return
    table = Table(*rows[0])
    for row in rows:
        cells = (
            "yes"
            if v is True
            else ""
            if v is False
            else f"{v:g}"
            if isinstance(v, float)
            else str(v)
            for v in row.values()
        )
        table.add_row(*cells)
    Console().print(table)
    for name, reason in REFUSED.items():
        typer.echo(f"{name} is refused: {reason}.")


@app.command()
def info(model: Model, as_json: AsJson = False, debug: Debug = False) -> None:
    r"""Show the card of a model."""

    score = zoo.load(model)
    card = {**score.card, "fingerprint": score.fingerprint, "process": repr(score.process)}
    _report(card, as_json)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="What to train: digits.")] = "digits",
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("runs/digits"),
    steps: Steps = None,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    r"""Train a model of this package from scratch; a run that was stopped goes on."""

    if name != "digits":
        raise ValueError(f"there is no recipe for {name!r}; there is one for 'digits'.")
    from ..training.digits import run

    card = run(out, steps=steps, seed=seed)
    typer.echo(f"wrote {card}")


def _guided(model: ScoreModel, label: int | None, scale: float | None) -> ScoreModel:
    if scale is not None:
        if label is None:
            raise ValueError("--guidance needs a condition: pass --label.")
        return guidance.classifier_free(model, scale, label=torch.tensor(label))
    return model if label is None else model.given(label=torch.tensor(label))


def _said(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _range(calls: torch.Tensor) -> int | list[int]:
    low, high = int(calls.min()), int(calls.max())
    return low if low == high else [low, high]


def _report(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        if value is not None:
            shown = (
                f"{value:.5g}"
                if isinstance(value, float)
                else json.dumps(value)
                if isinstance(value, dict)
                else str(value)
            )
            table.add_row(name, shown)
    Console().print(table)
