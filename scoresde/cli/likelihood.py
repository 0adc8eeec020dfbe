r"""The command that scores data: batch by batch, into a table that is never lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from .. import zoo
from ..likelihood import Likelihood, bits_per_dim, discrete_log_likelihood, log_likelihood
from ..models import ScoreModel
from ..plans import describe_process, fingerprint
from .files import read_rows
from .options import (
    AsJson,
    Atol,
    Data,
    Debug,
    Guidance,
    Label,
    Model,
    Rtol,
    Seed,
    SolverName,
    Steps,
    guided,
    report,
    said,
)
from .table import Table

app = typer.Typer()


@app.command()
def likelihood(
    model: Model,
    data: Data,
    levels: Annotated[int | None, typer.Option(help="Levels, for bits per dimension.")] = None,
    low: Annotated[float, typer.Option(help="Value of the lowest level.")] = -1.0,
    high: Annotated[float, typer.Option(help="Value of the highest level.")] = 1.0,
    dequantization: Annotated[
        str, typer.Option(help="uniform, truncated_normal, or none: data has noise already.")
    ] = "uniform",
    draws: Annotated[int, typer.Option(help="Draws of that noise.")] = 1,
    divergence: Annotated[
        str, typer.Option(help="auto, exact, hutchinson, fixed or hutch++.")
    ] = "auto",
    probes: Annotated[int | None, typer.Option(help="Probes at each node.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes of the sum.")] = None,
    target_stderr: Annotated[float | None, typer.Option(help="In nats; spends probes.")] = None,
    solver: SolverName = None,
    steps: Steps = None,
    rtol: Rtol = None,
    atol: Atol = None,
    t_min: Annotated[float | None, typer.Option(help="Time at which data is taken to be.")] = None,
    label: Label = None,
    use_labels: Annotated[bool, typer.Option(help="Condition on the file's labels.")] = False,
    guidance: Guidance = None,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Samples at once.")] = 128,
    out: Annotated[
        Path | None, typer.Option(help="A table: csv. A run that was stopped goes on.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Score data: nats per sample with their errors, and bits per dimension of integer data."""

    score = guided(zoo.load(model), label, guidance)
    x, labels = read_rows(data, score)
    if use_labels and labels is None:
        raise ValueError(f"{data} has no entry 'label' to condition on.")
    if levels is None and (draws, dequantization) != (1, "uniform"):
        raise ValueError("--draws and --dequantization are for data on levels: pass --levels.")
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, but is {batch_size}.")
    options = said(divergence=divergence, probes=probes, nodes=nodes, target_stderr=target_stderr,
                   solver=solver, steps=steps, rtol=rtol, atol=atol, t_min=t_min)  # fmt: skip
    discrete = said(levels=levels, low=low, high=high, dequantization=dequantization, draws=draws)
    setup = {"model": fingerprint(score), "process": describe_process(score), "data": str(data),
             "bytes": data.stat().st_size, "samples": len(x), "seed": seed,
             "label": label, "guidance": guidance, "labels": use_labels, **options, **discrete}  # fmt: skip
    table = Table(out, setup)
    with table, tqdm(total=len(x), initial=table.done, disable=as_json, desc="likelihood") as bar:
        for first in range(table.done, len(x), batch_size):
            rows = slice(first, first + batch_size)
            some = torch.from_numpy(np.array(x[rows]))
            condition = {"label": torch.from_numpy(labels[rows])} if use_labels else {}  # type: ignore[index]
            found = _density(
                score, some, discrete, {**options, **condition, "seed": seed, "first_index": first}
            )
            for row in _entries(found, first, discrete):
                table.add(row)
            bar.update(len(some))
            bar.set_postfix_str(table.words)
    report({**table.summary, "out": str(out) if out else None}, as_json)


def _density(
    model: ScoreModel, x: torch.Tensor, discrete: dict[str, Any], options: dict[str, Any]
) -> Likelihood:
    if "levels" not in discrete or discrete["dequantization"] == "none":
        return log_likelihood(model, x, **options)
    return discrete_log_likelihood(model, x, **discrete, **options)


def _entries(
    found: Likelihood, first: int, discrete: dict[str, Any]
) -> Iterator[dict[str, float | int]]:
    columns: dict[str, list[Any]] = {
        "nats": found.nats.tolist(),
        "stderr": found.stderr.tolist(),
        "total": found.total.tolist(),
        "calls": found.calls.tolist(),
        "products": found.derivatives.tolist(),
    }
    if "levels" in discrete:
        known = (
            {} if found.levels else {name: discrete[name] for name in ("levels", "low", "high")}
        )
        columns["bits_per_dim"] = bits_per_dim(found, **known).tolist()
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        yield {"index": first + i, **dict(zip(columns, values, strict=True))}
