r"""Samples in files, of runs that ended or stopped, and the command that goes on with those that stopped."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from solvers import Solution
from solvers.catalogue import name_of

from ..doors.warning import warn
from ..models.score_model import ScoreModel
from ..runs.files import load_solution, solution_arrays
from ..runs.options import RunOptions
from ..runs.resumed import resume as go_on
from .files import SUFFIXES, check_form, check_out, decoded, parts_of, write_array
from .given import conditions
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
    MaxCalls,
    Model,
    Trust,
    call_range,
    report,
    said,
)
from .words import NOTHING, stoppable, told

app = typer.Typer()
ON = "`scoresde resume {} {}`, with the same --label, --condition and --guidance, goes on"


@app.command()
def resume(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The npz file of a run that stopped.")],
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    batch_size: Batch = None,
    max_calls: MaxCalls = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: npz, npy or png. By default, the same.")
    ] = None,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Go on with a run that stopped, to the bits of the run in one piece."""

    out = file if out is None else out
    check_out(out, suffixes=SUFFIXES)
    check_budget(max_calls, out)
    solution = load_solution(file)
    score = guided(opened(model, trust, dtype), conditions(label, condition), guidance)
    check_form(score, out)
    options = {"on_failure": "raise", **said(batch_size=batch_size), **within(max_calls)}
    with stoppable(kept(out, model)):
        s = go_on(score, solution, progress=not as_json, **options)
    keep(score, s, out, as_json, model)


def check_budget(max_calls: int | None, out: Path | None) -> None:
    r"""Refuses a budget without a file that can keep what it was enough for."""

    if max_calls is not None and (out is None or out.suffix != ".npz"):
        raise ValueError(
            "--max-calls may stop the run, which only an npz file can keep; pass --out with one."
        )


def within(max_calls: int | None) -> RunOptions:
    r"""Returns the options of a run that keeps what its budget was enough for."""

    return {} if max_calls is None else {"max_calls": max_calls, "on_failure": "partial"}


def kept(out: Path | None, model: str) -> Callable[[BaseException], str]:
    r"""Returns a function that writes what there is of a run that the user stops, and says so.

    Arguments:
        out: The file of the run, if there is one.
        model: The model, as the user named it.
    """

    def keeping(error: BaseException) -> str:
        s: Solution | None = getattr(error, "solution", None)
        if s is None or s.memory is None or out is None or out.suffix != ".npz":
            return NOTHING
        write_array(out, s.x, **_arrays(s))
        return f"the run so far is in {out}, and {ON.format(model, out)}"

    return keeping


def keep(score: ScoreModel, s: Solution, out: Path | None, as_json: bool, model: str) -> None:
    r"""Writes and reports the samples of a run, or what there is of them.

    Arguments:
        score: The model.
        s: The solution.
        out: The file, if there is one.
        as_json: Whether to print JSON.
        model: The model, as the user named it.
    """

    found = {"log_density": s.log_density, "log_density_error": s.log_density_error}
    densities = {name: part.cpu() for name, part in found.items() if part is not None}
    if out is not None:
        others = {**decoded(score, s.x), **parts_of(score, s.x)} if s.ok else {}
        write_array(out, s.x, **_arrays(s), **others)
    status = None if s.ok else dict(Counter(s.status))
    numbers = s.x.is_floating_point() or s.x.is_complex()  # and not symbols, which have no mean
    moments = {"mean": s.x.mean().item(), "std": s.x.std().item()} if numbers else {}
    report(
        {"samples": len(s), "status": status, "calls": call_range(s.calls), **moments,
         **{name: part.mean().item() for name, part in densities.items()}, "out": str(out) if out else None,
         **s.provenance},
        as_json,
    )  # fmt: skip
    if not s.ok:
        _warn_of_rest(s, out, model)
    told("samples", out, as_json)


def _arrays(s: Solution) -> dict[str, object]:
    r"""What a file holds of a run beside the samples; all of it, unless its solver has no name."""

    name = None if s.solver is None else name_of(s.solver)
    if name is None:
        made = json.dumps(s.provenance)
        return {"calls": s.calls.numpy(), "times": s.times.numpy(), "provenance": made}
    return {n: array for n, array in solution_arrays(s, name).items() if n != "x"}


def _warn_of_rest(s: Solution, out: Path | None, model: str) -> None:
    short, failed = s.status.count("max_calls"), len(s) - s.status.count("ok")
    words = f"{failed} of {len(s)} samples did not reach the end"
    if short < failed:
        words += f", {failed - short} of them since they failed"
    cure = f"{ON.format(model, out)}."
    if s.memory is None or s.solver is None or name_of(s.solver) is None:
        cure = "this run cannot go on, so start again with more --max-calls."
    warn(f"{words}: what {out} holds of them is noise; {cure}")
