r"""The commands that list solvers and show models."""

import json

import typer

import solvers
from solvers.catalogue import REFUSED, describe

from ..runs.plan import fingerprint
from .models import opened
from .options import AsJson, Debug, Dtype, Model, Trust, report, show

app = typer.Typer()


@app.command("solvers")
def list_solvers(as_json: AsJson = False, debug: Debug = False) -> None:
    r"""List all solvers with their kind, order and cost."""

    rows = [describe(solvers.get(name)) for name in solvers.available()]
    if as_json:
        typer.echo(json.dumps({"solvers": rows, "refused": REFUSED}, indent=2))
        return
    show(rows)
    for name, reason in REFUSED.items():
        typer.echo(f"{name} is refused: {reason}.")


@app.command()
def info(
    model: Model,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Show the card of a model."""

    score = opened(model, trust, dtype)
    card = {
        **getattr(score, "card", {}),
        "fingerprint": fingerprint(score),
        "process": repr(score.process),
        "learned": score.learned,
    }
    report(card, as_json)
