r"""The command that checks a model on data."""

from pathlib import Path
from typing import Annotated

import typer

from ..checking import check_score
from ..checking.result import ScoreCheck
from ..training.digits_data import digits
from .files import check_out, read_array
from .given import check_number_of, conditions
from .models import opened
from .options import (
    AsJson,
    Batch,
    Conditions,
    Debug,
    Dtype,
    Label,
    Model,
    Seed,
    Trust,
    print_table,
    report,
    said,
)
from .words import stoppable

EMBEDDED, HELD_OUT = "digits", 160  # the model that has data, and how many held-out images of it

app = typer.Typer()


@app.command()
def check(
    model: Model,
    data: Annotated[
        Path | None,
        typer.Option(help="Data that the model was not trained on: npz with x, npy, or png."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model, such as that of averaged weights.")
    ] = None,
    one_step: Annotated[
        bool, typer.Option("--one-step", help="The network returns samples, not means.")
    ] = False,
    label: Label = None,
    condition: Conditions = None,
    seed: Seed = 0,
    batch_size: Batch = None,
    plot: Annotated[Path | None, typer.Option(help="A picture: png, pdf or svg.")] = None,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Check that a model is the score of some data, and name the mistake if not; then exit with 1."""

    check_out(plot)
    given, score = conditions(label, condition), opened(model, trust, dtype)
    if data is None and model != EMBEDDED:
        raise ValueError(f"--data must be passed for {model}, whose data is not known.")
    x = digits("test").images[:HELD_OUT] if data is None else read_array(data, score)[0]
    check_number_of(given, len(x))
    other = None if against is None else opened(against, trust, dtype)
    options = {**said(batch_size=batch_size), **given}
    with stoppable():
        found = check_score(score, x, against=other, one_step=one_step, seed=seed, **options)
    if plot is not None:
        found.plot(plot)
    _tell(found, as_json)
    if not found.ok:
        raise typer.Exit(1)


def _tell(found: ScoreCheck, as_json: bool) -> None:
    if not as_json:
        print_table(found.table())
        return
    rows = [
        {
            "noise_level": level.noise_level,
            "t": level.t,
            "error": level.error,
            "other": level.other,
            "slope": level.slope.value,
            "noise_slope": level.noise_slope,
            "tweedie": level.tweedie.value,
        }
        for level in found.levels
    ]
    report({"ok": found.ok, "findings": list(found.findings), "levels": rows}, as_json)
