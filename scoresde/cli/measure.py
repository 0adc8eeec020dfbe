r"""The measuring commands: compare, suggest."""

from pathlib import Path
from typing import Annotated

import typer

from ..comparing import Comparison
from ..comparing.suggestion import suggest
from ..comparing.verb import BUDGETS, TOLERANCES
from ..comparing.verb import compare as compare_solvers
from ..models.checks import check_count
from .files import check_out, read_array
from .given import check_number_of, conditions
from .guidances import guided
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
    print_table,
    report,
    said,
    show,
)
from .words import kept, stoppable, told

Values = Annotated[
    Path | None, typer.Option("--data", help="Data, for distances: npz, npy or png.")
]
Metrics = Annotated[
    str | None, typer.Option(help="energy, sliced_wasserstein, c2st; separated by commas.")
]

Workers = Annotated[
    str | None, typer.Option(help="Processes that share the work, or ray, or ray://HOST:PORT.")
]

app = typer.Typer()


Exact = Annotated[
    float | None, typer.Option("--reference-tolerance", help="Tolerance of the exact samples.")
]
Names = Annotated[str | None, typer.Option("--solvers", help="Names, separated by commas.")]
GridNames = Annotated[
    str | None,
    typer.Option("--grids", help="rho, log_snr, tan, asinh, logistic, t; separated by commas."),
]


@app.command()
def compare(
    model: Model,
    solvers: Names = None,
    budgets: Annotated[str, typer.Option(help="Calls per sample.")] = ",".join(map(str, BUDGETS)),
    grids: GridNames = None,
    tolerances: Annotated[
        str, typer.Option(help="Tolerances, for solvers that choose their steps.")
    ] = ",".join(map(str, TOLERANCES)),
    metrics: Metrics = None,
    data: Values = None,
    samples: Annotated[int, typer.Option("-n", "--number", help="Number of samples.")] = 256,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    batch_size: Batch = None,
    out: Annotated[Path | None, typer.Option(help="JSON; an interrupted run continues.")] = None,
    reference_tolerance: Exact = None,
    html: Annotated[Path | None, typer.Option(help="A report in one html file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A picture: png, pdf or svg.")] = None,
    workers: Workers = None,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Measure solvers on a model: error and distance against network calls."""

    check_out(out, html, plot)
    given = conditions(label, condition)
    check_number_of(given, check_count("-n", samples, 4))
    score = guided(opened(model, trust, dtype), given, guidance)
    options = said(grids=grids and grids.split(","), metrics=metrics and metrics.split(","), batch_size=batch_size,
                   reference_tolerance=reference_tolerance, workers=workers)  # fmt: skip
    with stoppable(kept(out, "--out")):
        c = compare_solvers(
            score,
            solvers.split(",") if solvers else None,
            numbers_in("budgets", budgets, int),
            tolerances=numbers_in("tolerances", tolerances, float),
            data=None if data is None else read_array(data, score)[0],
            samples=samples,
            seed=seed,
            file=out,
            progress=not as_json,
            **options,
        )
    if plot is not None:
        c.plot(plot)
    if html is not None:
        c.html(html, score)
    _tell(c, as_json)
    told("figures", out or html or plot, as_json)


@app.command("suggest")
def suggest_plans(
    model: Model,
    budget: Annotated[int, typer.Option(help="Maximum calls per sample.")],
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Suggest solvers and grids from measurements on other models."""

    rows = [vars(s) for s in suggest(opened(model, trust, dtype), budget)]
    if as_json:
        report({"suggestions": rows}, as_json)
    else:
        show([{**row["options"], "calls": row["calls"], "distance": row["value"],
               "of the exact flow": row["exact"]} for row in rows])  # fmt: skip
        for number, row in enumerate(rows, 1):
            typer.echo(f"{number}: energy distance x 1000 on {row['source']}")


def _tell(c: Comparison, as_json: bool) -> None:
    if as_json:
        report(
            {
                "rows": [vars(row) for row in c.rows],
                "references": c.references,
                "floors": c.floors,
            },
            as_json,
        )
        return
    print_table(c.table())
