r"""The drawing commands: the geometry of a step or a path, its lengths and angles, films, spectra."""

from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from .. import plots
from ..geometry import Trajectory, follow, high_dimensions, measure
from ..models.checks import check_count
from ..models.score_model import ScoreModel
from .files import check_out, read_array
from .given import check_number_of, conditions
from .guidances import guided
from .models import opened
from .options import (
    AsJson,
    Conditions,
    Debug,
    Dtype,
    Eta,
    Grid,
    Guidance,
    Label,
    Model,
    PlanFile,
    Seed,
    SolverName,
    Steps,
    Trust,
    numbers_in,
    report,
    said,
    show,
)
from .words import stoppable

app = typer.Typer()
drawing = typer.Typer(help="Draw the course of sampling.", no_args_is_help=True)
app.add_typer(drawing, name="plot")
Number = Annotated[int, typer.Option("-n", "--number", help="Number of samples to average over.")]
LENGTHS = ("way", "push", "difference", "step", "noise")
ANGLES = ("push / way", "cos(push, way)", "cos(push, estimate)", "cos(push, last)", "hidden")
Drawn = Annotated[int, typer.Option("-n", "--number", help="Number of samples to draw.")]
Which = Annotated[int, typer.Option(help="Which sample.")]


def _followed(
    model: ScoreModel, n: int, given: dict[str, Tensor], guidance: str | None, seed: int, solver: str | None,
    steps: int | None, grid: str | None, eta: float | None, plan: Path | None,
) -> Trajectory:  # fmt: skip
    options = said(solver=solver, steps=steps, grid=grid, eta=eta, plan=plan)
    check_number_of(given, n)
    score = guided(model, given, guidance)
    with stoppable():
        return follow(score, n, seed=seed, **options)


@drawing.command()
def geometry(
    model: Model,
    out: Annotated[Path, typer.Option(help="File: png, or gif or html to show all steps.")] = Path("geometry.png"),
    step: Annotated[int | None, typer.Option(help="The step, from 0; by default, the whole path.")] = None,
    sample: Which = 0,
    dimensions: Annotated[int, typer.Option(help="2, or 3 for a three-dimensional view.")] = 2,
    highest: Annotated[float | None, typer.Option(help="Noise level from which the path is drawn.")] = None,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    plan: PlanFile = None,
    seed: Seed = 0,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    r"""Draw a step, or the path, of a sample: noisy points, estimates, guidance, noise."""

    plots.check_picture(out, plots.MOVIES)
    check_out(out)
    score, given = opened(model, trust, dtype), conditions(label, condition)
    t = _followed(score, sample + 1, given, guidance, seed, solver, steps, grid, eta, plan)
    plots.geometry(out, t, sample=sample, step=step, dimensions=dimensions, highest=highest)
    claims = [  # where the picture misleads
        {"claim": c.name, "2 dimensions": c.flat, f"{t.dimension} dimensions": c.here}
        for c in high_dimensions(t)
    ]
    if as_json:
        report({"out": str(out), "claims": claims}, as_json)
        return
    typer.echo(f"wrote {out}")
    show(claims)


@drawing.command()
def paths(
    model: Model,
    out: Annotated[Path, typer.Option(help="File: png, or gif or html to show all states.")] = Path("paths.png"),
    step: Annotated[int | None, typer.Option(help="The state, from 0; by default, the last.")] = None,
    n: Drawn = 200,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    plan: PlanFile = None,
    seed: Seed = 0,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    r"""Draw the paths of many samples over the density of noisy data, or images on their way from noise."""

    plots.check_picture(out, plots.MOVIES)
    check_out(out)
    check_count("-n", n, at_least=1)
    score, given = opened(model, trust, dtype), conditions(label, condition)
    t = _followed(score, n, given, guidance, seed, solver, steps, grid, eta, plan)
    plots.paths(out, t, step=step)
    report({"out": str(out), "lowest noise level": float(t.levels[-1])}, as_json)


@drawing.command()
def density(
    model: Model,
    out: Annotated[Path, typer.Option(help="File: png, pdf or svg.")] = Path("density.png"),
    data: Annotated[Path | None, typer.Option(help="Samples to draw over the map.")] = None,
    side: Annotated[int | None, typer.Option(help="Number of points along each axis.")] = None,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Draw the log-density of a model of one or two dimensions."""

    plots.check_picture(out)
    check_out(out)
    given = conditions(label, condition)
    check_number_of(given, 1)
    score = opened(model, trust, dtype)
    x = None if data is None else read_array(data, score)[0]
    with stoppable():
        found = plots.density(out, guided(score, given, guidance), over=x, side=side)
    best = {"highest log-density, nats": found.nats.max().item()}
    report({"out": str(out), **best, "possible error, nats": found.total.mean().item()}, as_json)


@drawing.command()
def trajectory(
    model: Model,
    out: Annotated[Path, typer.Option(help="File: png, pdf or svg.")] = Path("trajectory.png"),
    film: Annotated[Path | None, typer.Option(help="File for a film strip.")] = None,
    n: Number = 16,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    plan: PlanFile = None,
    seed: Seed = 0,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Draw and print lengths and angles during sampling, optionally with a film strip of the estimates."""

    check_count("-n", n, at_least=1)
    for file in (out, film):
        if file is not None:
            plots.check_picture(file)
            check_out(file)
    score = opened(model, trust, dtype)
    t = _followed(
        score, n, conditions(label, condition), guidance, seed, solver, steps, grid, eta, plan
    )
    plots.trajectory(out, t)
    if film is not None:
        plots.film(film, t)
    rows = measure(t)
    if as_json:
        report({"out": str(out), "film": str(film) if film else None, "rows": rows}, as_json)
        return
    for names in (LENGTHS, ANGLES):
        show(
            [
                {n: float(f"{row[n]:.3g}") for n in ("noise level", *names) if n in row}
                for row in rows
            ]
        )
    typer.echo(f"wrote {out}{f' and {film}' if film else ''}")


@drawing.command()
def spectrum(
    model: Model,
    out: Annotated[Path, typer.Option(help="File: png, pdf or svg.")] = Path("spectrum.png"),
    data: Annotated[Path | None, typer.Option(help="Images to read. By default, samples.")] = None,
    levels: Annotated[
        str, typer.Option(help="Noise levels, separated by commas.")
    ] = "0.1,0.3,1,3",
    n: Number = 64,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    plan: PlanFile = None,
    seed: Seed = 0,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Draw the power spectrum of images with noise, and of the estimates during sampling."""

    known = numbers_in("levels", levels, float)
    plots.check_picture(out)
    check_out(out)
    check_count("-n", n, at_least=2)
    score = opened(model, trust, dtype)
    x = None if data is None else read_array(data, score)[0]
    t = _followed(
        score, n, conditions(label, condition), guidance, seed, solver, steps, grid, eta, plan
    )
    images = t.states[-1] if x is None else x
    hinges = plots.spectrum(out, images, levels=known, followed=t, seed=seed)
    found = {
        f"hinge at noise level {level:g}, cycles per pixel": at for level, at in hinges.items()
    }
    report({"out": str(out), **found}, as_json)
