r"""The commands that list solvers and models, and the one that trains a model."""

import json
from pathlib import Path
from typing import Annotated

import typer

import solvers
from solvers.catalogue import REFUSED, describe

from ..models.checks import check_count
from ..runs.plan import fingerprint
from .files import check_out
from .models import opened
from .options import AsJson, Debug, Dtype, Model, Trust, report, show
from .words import stoppable

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


@app.command()
def train(
    name: Annotated[
        str, typer.Argument(help="The model to train: digits, digits_classifier or patches.")
    ] = "digits",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model, by default runs/NAME.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of training steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.")] = 0,
    debug: Debug = False,
) -> None:
    r"""Train a model of this package from scratch; an interrupted run of digits or patches continues."""

    from ..training import digits, digits_classifier, patches

    recipes = {
        "digits": digits.run,
        "digits_classifier": digits_classifier.run,
        "patches": patches.run,
    }
    if name not in recipes:
        raise ValueError(
            f"there is no recipe for {name!r}; there is one for {', '.join(recipes)}."
        )
    folder = out or Path("runs") / name
    check_out(folder / "checkpoint")
    steps = check_count("--steps", steps, at_least=1)
    kept = f"{folder} holds the last checkpoint, if there was one, and the same command continues"
    with stoppable(kept):
        cards = recipes[name](folder, steps=steps, seed=check_count("--seed", seed, 0, None))
    typer.echo(f"wrote {', '.join(map(str, cards))}")
