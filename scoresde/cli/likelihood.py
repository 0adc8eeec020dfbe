r"""The command that scores data batch by batch, into a table that survives interruptions."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, TypedDict, cast

import numpy as np
import torch
import typer

from ..jobs import likelihood as all_likelihoods
from ..likelihood import (
    Likelihood,
    bits_per_dim,
    discrete_log_likelihood,
    log_likelihood,
    quantize,
)
from ..likelihood.bits import bin_width, check_noise, on_levels
from ..models.checks import check_count, check_data
from ..models.score_model import ScoreModel
from ..runs.continued import IDENTITY
from ..runs.grids import check_levels, check_no_zero, level_times
from ..runs.identity import identity
from ..runs.options import Options
from ..runs.plan import describe_process, fingerprint
from ..runs.progress import bar
from ..runs.run import with_t_min
from ..symbols.form import Symbols
from .files import check_out, digest, read_rows
from .given import check_number_of, conditions, plain
from .guidances import guided
from .job import into_folder, is_job
from .models import opened
from .options import (
    AsJson,
    Atol,
    Conditions,
    Data,
    Debug,
    Dtype,
    Grid,
    Guidance,
    Label,
    Model,
    NoiseLevels,
    Rtol,
    Seed,
    ShardSize,
    SigmaMin,
    SolverName,
    Status,
    Steps,
    Trust,
    Workers,
    numbers_in,
    report,
    said,
)
from .table import Table
from .words import options_of, spoken, stoppable, told

app = typer.Typer()


class Levels(TypedDict):
    r"""The levels of data, as keyword arguments."""

    levels: int
    low: float
    high: float


class Discrete(TypedDict, total=False):
    r"""The options for data on levels; none for other data."""

    levels: int
    low: float
    high: float
    dequantization: str
    draws: int


GRID = "--noise-levels"
CHECKED = 4096  # samples that are checked at once
BATCH, PIECE = (
    128,
    8,
)  # samples that are scored at once, and where each takes a product per dimension


@app.command()
def likelihood(
    model: Model,
    data: Data,
    levels: Annotated[int | None, typer.Option(help="Levels, for bits per dimension.")] = None,
    low: Annotated[float | None, typer.Option(help="Value of the lowest level: -1.")] = None,
    high: Annotated[float | None, typer.Option(help="Value of the highest level: 1.")] = None,
    dequantization: Annotated[
        str | None,
        typer.Option(help="uniform (default), truncated_normal, or none for noisy data."),
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Draws of that noise (default 1).")] = None,
    divergence: Annotated[
        str, typer.Option(help="auto, exact, hutchinson, fixed or hutch++.")
    ] = "auto",
    probes: Annotated[int | None, typer.Option(help="Probes at each node.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes of the sum.")] = None,
    target_stderr: Annotated[float | None, typer.Option(help="Wanted error, in nats.")] = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    rtol: Rtol = None,
    atol: Atol = None,
    noise_levels: NoiseLevels = None,
    t_min: Annotated[float | None, typer.Option(help="Time assigned to the data.")] = None,
    sigma_min: SigmaMin = None,
    label: Label = None,
    condition: Conditions = None,
    use_labels: Annotated[bool, typer.Option(help="Condition on the file's labels.")] = False,
    guidance: Guidance = None,
    seed: Seed = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Samples at once: 128, and 4 where the divergence is exact."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A csv table or a folder; an interrupted run continues.")
    ] = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    status: Status = False,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Score data: nats per sample with their errors, and bits per dimension for integer data."""

    noise = said(levels=levels, low=low, high=high, dequantization=dequantization, draws=draws)
    discrete = _discrete(cast(Discrete, noise))
    job = is_job(out, workers, status, as_json)
    check_out(out, folder=job)
    given = _given(use_labels, label, condition)
    size = check_count("--batch-size", batch_size, 1) or _size(divergence, probes, target_stderr)
    loaded = opened(model, trust, dtype)
    x, labels = _read(data, loaded, use_labels)
    check_rows(loaded, x, labels, discrete, given)
    score = guided(loaded, {**given, **labels}, guidance)
    options = said(divergence=divergence, probes=probes, nodes=nodes, target_stderr=target_stderr, solver=solver,
                   steps=steps, grid=grid, rtol=rtol, atol=atol, t_min=t_min, sigma_min=sigma_min)  # fmt: skip
    options = _started(score, _on_grid(score, noise_levels, options), discrete)
    if job and out is not None:
        into_folder(all_likelihoods, score, x, out=out, as_json=as_json, seed=seed,
                    **options, **discrete, **said(workers=workers, shard_size=shard_size))  # fmt: skip
        return
    known = {"label": plain(given).get("label"), **({"condition": condition} if condition else {})}
    table = Table(out, {**_setup(score, data), "samples": len(x), "seed": seed, "guidance": guidance,
                        "labels": use_labels, **known, **options, **discrete}, score)  # fmt: skip

    def density(rows: slice) -> Likelihood:
        own = score.rows(torch.arange(rows.start, rows.stop))
        now = {**options, "seed": seed, "first_index": rows.start}
        return _density(own, torch.from_numpy(np.array(x[rows])), discrete, now)

    _fill(table, len(x), size, density, discrete, shown=not as_json)
    _report(table, loaded, as_json)


def _size(divergence: str, probes: int | None, target: float | None) -> int:
    probed = divergence not in ("auto", "exact") or probes is not None or target is not None
    return BATCH if probed else PIECE


def _given(
    use_labels: bool, label: str | None, condition: list[str] | None
) -> dict[str, torch.Tensor]:
    if use_labels and label is not None:
        raise ValueError("--label and --use-labels are both labels; pass one of the two.")
    given = conditions(label, condition)
    if use_labels and any(len(value) > 1 for value in given.values()):
        raise ValueError(
            "--condition must be one value for all samples if --use-labels is passed."
        )
    return given


def _on_grid(model: ScoreModel, text: str | None, options: Options) -> Options:
    r"""Returns options with the times of the noise levels in a text, if there is one."""

    if text is None:
        return options
    for name in ("steps", "grid", "rtol", "atol", "t_min", "sigma_min"):
        if name in options:
            raise ValueError(f"{name}= has no effect with {GRID}; pass one of the two.")
    numbers, process = numbers_in(GRID[2:], text, float), model.process
    check_no_zero(numbers, GRID)
    levels = check_levels(numbers, denoise=False, name=GRID)
    times = level_times(process, levels, f"{GRID} go", "pass levels within these").flip(0).tolist()
    if times[-1] < process.t_max:
        raise ValueError(
            f"{GRID} must start at {process.noise_level(process.t_max):.6g}, the noise level of the prior, but "
            f"start at {numbers[0]:.6g}; add it."
        )
    return {**options, "times": times, "t_min": times[0]}


def _started(model: ScoreModel, options: Options, discrete: Discrete) -> Options:
    r"""Returns options with the time of the data, whose noise must not leave the bins of data on levels."""

    options = with_t_min(model, options)
    if options.get("t_min") is not None and discrete:
        check_noise(model.process.noise_level(options["t_min"]), _width(discrete))
    return options


def _setup(model: ScoreModel, data: Path) -> dict[str, str]:
    r"""What two tables must share, besides options, if one is to continue the other."""

    return {
        "model": fingerprint(model),
        IDENTITY: identity(model),
        "process": describe_process(model),
        "data": digest(data),
    }


def _fill(
    table: Table, count: int, size: int, density: Callable[[slice], Likelihood], discrete: Discrete,
    *, shown: bool,
) -> None:  # fmt: skip
    r"""Scores the samples that the table lacks, in batches of the given size."""

    if table.done > count:
        raise ValueError(
            f"{table.file} has {table.done} rows, but there are only {count} samples; remove it."
        )
    with table, bar(total=count, initial=table.done, desc="likelihood", shown=shown) as b:
        for first in range(table.done, count, size):
            with stoppable(_kept(table, count)):
                found = density(slice(first, min(first + size, count)))
            table.cures = found.cures
            for row in _entries(found, first, discrete):
                table.add(row)
            b.set_postfix_str(table.words, refresh=False)
            b.update(len(found.nats))


def _report(table: Table, model: ScoreModel, as_json: bool) -> None:
    advice = table.advice and spoken(table.advice, options_of(app, []))
    out = None if table.file is None else str(table.file)
    coded = model.transform is not None and not model.transform.lossless
    of = {"of": "latents, not of the data that they encode"} if coded else {}
    report({**table.summary, **of, "advice": advice, "out": out}, as_json)
    told("the values of each sample", out, as_json)


def _kept(table: Table, count: int) -> str:
    rows = f"{table.done} of {count} rows"
    if table.file is None:
        return f"{rows} were scored, and none kept"
    return f"{rows} are in {table.file}, and the same command continues"


def _read(
    data: Path, model: ScoreModel, use_labels: bool
) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    r"""Data, and its labels as a condition, if they are used."""

    x, labels = read_rows(data, model)
    if use_labels and labels is None:
        raise ValueError(f"{data} has no entry 'label' to condition on.")
    return x, {"label": torch.from_numpy(np.array(labels))} if use_labels else {}


def _levels(discrete: Discrete) -> Levels:
    return {"levels": discrete["levels"], "low": discrete["low"], "high": discrete["high"]}


def _width(discrete: Discrete) -> float:
    return bin_width(**_levels(discrete))


def _discrete(noise: Discrete) -> Discrete:
    r"""The options for data on levels; none if there are no levels."""

    if "levels" not in noise:
        if noise:
            raise ValueError(f"--{next(iter(noise))} is for data on levels: pass --levels.")
        return {}
    if noise.get("dequantization") == "none" and "draws" in noise:
        raise ValueError(
            "--draws has no effect without noise; leave out --draws, or --dequantization none."
        )
    return {"low": -1.0, "high": 1.0, "dequantization": "uniform", "draws": 1, **noise}


def check_rows(
    model: ScoreModel, x: np.ndarray, labels: Mapping[str, torch.Tensor], discrete: Discrete,
    given: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> None:  # fmt: skip
    r"""Refuses data that does not fit the model or the levels, before any of it is scored."""

    if discrete and model.transform is not None:
        raise ValueError(
            f"--levels is for data that is the state of the model, and this model has {model.transform!r}; leave "
            "out --levels for the density in the units of the data."
        )
    if isinstance(model.transform, Symbols):
        raise ValueError(
            f"this model has {model.transform!r} as data, symbols, which have no density; use ss.symbols.elbo in "
            "Python, a lower bound of their probability."
        )
    if not len(x):
        raise ValueError("the data has no samples.")
    for name, value in labels.items():
        if len(value) != len(x):
            raise ValueError(f"there are {len(value)} labels for {len(x)} samples.")
        model.check_condition(name, value)
    check_number_of(given, len(x))
    ends = _levels(discrete) if "levels" in discrete else None
    noisy, off = discrete.get("dequantization") == "none", False
    for first in range(0, len(x), CHECKED):
        some = torch.from_numpy(np.array(x[first : first + CHECKED]))
        try:
            off = _check_some(model, some, ends, noisy) or off
        except (ValueError, TypeError) as error:
            last = first + len(some) - 1
            raise ValueError(f"among samples {first} to {last}: {error}") from None
    if noisy and not off:
        raise ValueError(
            "all data is exactly on its levels, where a density does not give their probability; leave "
            "out --dequantization none."
        )


def _check_some(model: ScoreModel, some: torch.Tensor, ends: Levels | None, noisy: bool) -> bool:
    r"""Refuses samples that do not fit, and returns whether noisy ones are off their levels."""

    off = False
    if ends is None and not (some.is_floating_point() or some.is_complex()):
        raise ValueError(f"it holds {some.dtype}: pass --levels, the number of levels.")
    if ends is not None and noisy:
        off = not torch.equal(quantize(some, **ends).to(some), some)
    elif ends is not None:
        some = on_levels(some, **ends)
    states = some if model.transform is None else model.transform.inside("x", some)
    check_data(model, states if states.is_complex() else states.double())
    return off


def _density(
    model: ScoreModel, x: torch.Tensor, discrete: Discrete, options: Options
) -> Likelihood:
    if "levels" not in discrete or discrete["dequantization"] == "none":
        return log_likelihood(model, x, **options)
    return discrete_log_likelihood(model, x, **discrete, **options)


def _entries(
    found: Likelihood, first: int, discrete: Discrete
) -> Iterator[dict[str, float | int]]:
    columns: dict[str, list[float]] = {
        "nats": found.nats.tolist(),
        "stderr": found.stderr.tolist(),
        "total": found.total.tolist(),
        "calls": found.calls.tolist(),
        "products": found.derivatives.tolist(),
        **{part: value.tolist() for part, value in found.budget.items() if part != "probes"},
    }
    if "levels" in discrete:
        bits = bits_per_dim(found) if found.levels else bits_per_dim(found, **_levels(discrete))
        columns["bits_per_dim"] = bits.tolist()
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        yield {"index": first + i, **dict(zip(columns, values, strict=True))}
