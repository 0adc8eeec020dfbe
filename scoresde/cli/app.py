r"""The commands."""

import importlib.metadata
import sys
import warnings
from typing import Annotated, TextIO

import typer
from rich.console import Console

import solvers

from ..jobs import sample as sample_all
from ..models.checks import check_count
from ..sampling import sample as draw
from ..training import TrainingError
from . import (
    about,
    check,
    distill,
    latents,
    likelihood,
    measure,
    playground,
    plot,
    resuming,
    train,
    tune,
)
from .files import SUFFIXES, check_form, check_out
from .given import check_number_of, conditions, largest
from .guidances import guided
from .job import into_folder, is_job, refuse
from .models import opened, place_of
from .options import (
    AsJson,
    Atol,
    Batch,
    Conditions,
    Debug,
    Dtype,
    Eta,
    Grid,
    Guidance,
    Label,
    Levels,
    MaxCalls,
    Model,
    Out,
    PlanFile,
    Rtol,
    Seed,
    ShardSize,
    SigmaMax,
    SigmaMin,
    SolverName,
    Status,
    Steps,
    Trust,
    Workers,
    levels_in,
    said,
)
from .resuming import check_budget, keep, kept, within
from .words import options_of, spoken, stoppable

FEW = 16
OURS = (ValueError, TypeError, OSError, ImportError, solvers.SolverError, TrainingError)

app = typer.Typer(
    help="Sample, encode, decode, edit and score with a model in a file and any solver.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (resuming, latents, about, distill, likelihood, check, measure, tune, plot, train,
             playground):  # fmt: skip
    app.add_typer(part.app)


def run() -> None:
    r"""Runs the command line; errors are one sentence and exit with 1."""

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            app()
    except Exception as error:
        large = isinstance(error, MemoryError) or "memory" in str(error)
        place = None if large or _is_ours(error) else place_of(error)
        if "--debug" in sys.argv or not (large or place or _is_ours(error)):
            raise
        words = _words(place or error)
        if large and not _is_ours(error):
            words = f"not enough memory ({words}); pass fewer samples at once, as by --batch-size."
        _tell(f"error: {words}", "red")
        raise SystemExit(1) from None


def _is_ours(error: BaseException) -> bool:
    r"""Whether an error is a message for users, rather than a bug."""

    return isinstance(error, OURS)


def _words(message: object) -> str:
    return spoken(str(message).split("\n")[0], options_of(app, sys.argv[1:]))


def _tell(words: str, style: str) -> None:
    Console(stderr=True).print(words, style=style, highlight=False, soft_wrap=True, markup=False)


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    _tell(f"warning: {_words(message)}", "yellow")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"scoresde {importlib.metadata.version('scoresde')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    r"""Reads the options that all commands share."""


@app.command()
def sample(
    model: Model,
    n: Annotated[
        int | None,
        typer.Option("-n", "--number", help="Number of samples: 16, or one per label."),
    ] = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    levels: Levels = None,
    sigma_min: SigmaMin = None,
    sigma_max: SigmaMax = None,
    rtol: Rtol = None,
    atol: Atol = None,
    eta: Eta = None,
    plan: PlanFile = None,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    first_index: Annotated[int, typer.Option(help="Index of the first sample.")] = 0,
    batch_size: Batch = None,
    max_calls: MaxCalls = None,
    log_density: Annotated[
        bool, typer.Option("--log-density", help="Log-densities too: nats, before the denoising.")
    ] = False,
    out: Out = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    status: Status = False,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Draw samples."""

    job = is_job(out, workers, status, as_json)
    check_out(out, suffixes=SUFFIXES, folder=job)
    if not job:
        check_budget(max_calls, out)
    given = conditions(label, condition)
    n = largest(given, FEW) if n is None else check_count("-n", n, 1, None)
    check_number_of(given, n)
    options = said(solver=solver, steps=steps, grid=grid, levels=levels_in(levels), sigma_min=sigma_min,
                   sigma_max=sigma_max, rtol=rtol, atol=atol, eta=eta, plan=plan, batch_size=batch_size,
                   log_density=log_density or None)  # fmt: skip
    score = guided(opened(model, trust, dtype), given, guidance)
    if job and out is not None:
        refuse(first_index=first_index or None)
        into_folder(sample_all, score, n, out=out, as_json=as_json, seed=seed, **options,
                    **said(workers=workers, shard_size=shard_size, max_calls=max_calls))  # fmt: skip
        return
    options |= within(max_calls)
    check_form(score, out)
    with stoppable(kept(out, model)):
        s = draw(score, n, seed=seed, first_index=first_index, progress=not as_json, **options)
    keep(score, s, out, as_json, model)
