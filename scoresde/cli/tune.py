r"""The command that searches for plans."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..files import Json
from ..models.checks import check_count
from ..models.score_model import ScoreModel
from ..runs.plan import Plan
from ..tuning.verb import tune as search
from .files import check_out, read_array
from .given import check_number_of, conditions
from .guidances import guided
from .measure import Exact, GridNames, Names, Values, Workers
from .models import opened
from .options import (
    AsJson,
    Batch,
    Conditions,
    Debug,
    Dtype,
    Guidance,
    Label,
    Model,
    Seed,
    Trust,
    numbers_in,
    report,
    said,
    show,
)
from .words import kept, stoppable

Noisy = Annotated[
    bool, typer.Option("--stochastic", help="Search the noise, too, for a distance to --data.")
]
Scales = Annotated[
    str | None,
    typer.Option(help="Scales of --guidance that the plan is for, separated by commas."),
]
Each = Annotated[
    bool, typer.Option("--each", help="A plan for each of --scales, in files with its number.")
]

app = typer.Typer()


@app.command()
def tune(
    model: Model,
    budget: Annotated[int, typer.Option(help="Maximum calls per sample.")],
    out: Annotated[Path, typer.Option(help="File for the plan: JSON.")],
    solvers: Names = None,
    grids: GridNames = None,
    metric: Annotated[str, typer.Option(help="error, or a distance to --data.")] = "error",
    data: Values = None,
    samples: Annotated[int, typer.Option("-n", "--number", help="Samples for the choice.")] = 64,
    held_out: Annotated[int, typer.Option(help="Held-out samples for the measurement.")] = 256,
    learned: Annotated[bool, typer.Option("--learned", help="Learn the weights, too.")] = False,
    stochastic: Noisy = False,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    scales: Scales = None,
    each: Each = False,
    seed: Seed = 0,
    batch_size: Batch = None,
    reference_tolerance: Exact = None,
    state: Annotated[
        Path | None, typer.Option(help="JSON; an interrupted search continues.")
    ] = None,
    workers: Workers = None,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Search for the best solver and grid within a budget, and write a plan."""

    words = _at_scales(scales, guidance, each)
    names = list(words) if each else [""]
    check_out(*(_named(out, name) for name in names), state)
    given = conditions(label, condition)
    check_number_of(given, check_count("-n", samples, 4))
    score = opened(model, trust, dtype)
    several = {name: guided(score, given, one) for name, one in words.items()}
    options = said(solvers=solvers and solvers.split(","), grids=grids and grids.split(","),
                   data=None if data is None else read_array(data, score)[0], batch_size=batch_size,
                   reference_tolerance=reference_tolerance, workers=workers)  # fmt: skip
    plans = {}
    with stoppable(kept(state, "--state")):
        for name in names:
            one: ScoreModel | dict[str, ScoreModel] = several[name] if name in several else several
            plans[name] = search(
                one,
                budget,
                metric=metric,
                samples=samples,
                held_out=held_out,
                learned=learned,
                stochastic=stochastic,
                seed=seed,
                file=state and _named(state, name),
                progress=not as_json,
                **options,
            )
            plans[name].save(_named(out, name))
    _tell(plans, out, f"scoresde sample {model}", " --trust" if trust else "", as_json)


def _at_scales(scales: str | None, guidance: str | None, each: bool) -> dict[str, str | None]:
    r"""The words of the guidance at each of several scales, by scale."""

    if scales is None:
        if each:
            raise ValueError("--each is for several --scales; pass them, or leave it out.")
        return {"": guidance}
    name, *settings = (guidance or "classifier_free").split(":")
    if name[:1].isdigit() or any(setting.startswith("scale=") for setting in settings):
        raise ValueError(
            f"--scales replaces the scale of --guidance, which is {guidance!r}; leave the scale out of it."
        )
    numbers = [f"{w:.15g}" for w in numbers_in("scales", scales, float)]
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            f"--scales must differ, but are {scales!r}; leave out what is there twice."
        )
    return {w: ":".join([name, f"scale={w}", *settings]) for w in numbers}


def _named(file: Path, name: str) -> Path:
    r"""The file of one of several plans."""

    return file.with_name(f"{file.stem}_{name}{file.suffix}") if name else file


def _tell(plans: Mapping[str, Plan], out: Path, command: str, trust: str, as_json: bool) -> None:
    r"""Prints the held-out results of plans, beside those of others."""

    results = {
        name: {"plan": str(plan), "out": str(_named(out, name)), **plan.figures}
        for name, plan in plans.items()
    }
    if as_json:
        report(results.get("", {"plans": results}), as_json)
        return
    rows = [row for name, plan in plans.items() for row in _rows(name, plan)]
    columns = dict.fromkeys(column for row in rows for column in row)
    show([{column: row.get(column, "") for column in columns} for row in rows])
    for name, plan in plans.items():
        file = _named(out, name)
        typer.echo(
            f"on {plan.figures['samples']} held-out samples; wrote {file}: {command} --plan {file}{trust}"
        )


def _rows(name: str, plan: Plan) -> list[Json]:
    r"""The rows of a plan, of the best plans before it, and, for several scales, of each scale."""

    first = {"scale": name} if name else {}
    if "by model" not in plan.figures:
        known = [(str(plan), plan.figures)]
        known += [(entry["plan"], entry) for entry in plan.figures["best before"]]
        return [{**first, "plan": words, **_reached(entry)} for words, entry in known]
    found = []
    by_scale = plan.figures["by model"]
    for scale, row in by_scale.items():
        alone, best = row["alone"], row["best before"][0]
        known = [(str(plan), row), (f"for {next(iter(by_scale))} alone: {alone['plan']}", alone)]
        for words, entry in [*known, (best["plan"], best)]:
            found.append({"scale": scale, "plan": words, **_reached(entry)})
    return found


def _reached(figures: Json) -> dict[str, float]:
    distances = {name: value[0] for name, value in figures["distances"].items()}
    return {
        "calls": figures["calls"],
        **{f"error {k}": v for k, v in figures["error"].items()},
        **distances,
    }
