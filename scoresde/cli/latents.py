r"""The commands of latents and edits."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from solvers import Solution

from .. import plots
from ..editing import METHODS, frames
from ..editing.translate import in_data_units
from ..editing.verb import edit as edit_data
from ..jobs import decode as decode_all
from ..jobs import edit as edit_all
from ..jobs import encode as encode_all
from ..jobs import open as open_job
from ..latents import latent_statistics, load_latents, save_latents
from ..latents.encoding import encode as encode_data
from ..latents.files import check_latents_file
from ..latents.statistics import at_prior
from ..models.score_model import ScoreModel
from ..plots.figures import PICTURES
from ..sampling import decode as decode_latents
from .files import SUFFIXES, check_form, check_out, open_arrays, parts_of, read_array, write_array
from .given import check_number_of, conditions, whole
from .guidances import guided
from .job import into_folder, is_job, refuse, url_of
from .models import opened
from .options import (
    AsJson,
    Atol,
    Batch,
    Conditions,
    Data,
    Debug,
    Dtype,
    Grid,
    Guidance,
    Label,
    Levels,
    Model,
    Out,
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
    call_range,
    levels_in,
    report,
    said,
)
from .words import stoppable, told

app = typer.Typer()
Target = Annotated[
    str | None, typer.Option(help="The class of the edited data, or one per sample.")
]
Source = Annotated[
    str | None, typer.Option(help="The class of the given data, or one per sample.")
]
Strengths = Annotated[
    Path | None, typer.Option(help="npy of strengths on [0, 1], per sample or per entry.")
]
Known = Annotated[
    Path | None, typer.Option(help="For inpaint: npy, 1 where data is kept, or any on [0, 1].")
]
Way = Annotated[str | None, typer.Option(help="For inpaint: replacement, resampling or gradient.")]
Averages = Annotated[int | None, typer.Option(help="For flow: noise draws per step.")]
Chain = Annotated[str | None, typer.Option(help="For noise_path: forward or independent.")]
Plot = Annotated[
    Path | None, typer.Option(help="Picture of before, after and difference: png, pdf or svg.")
]


@app.command()
def encode(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="File for the latents: npz; or a folder.")],
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    levels: Levels = None,
    sigma_min: SigmaMin = None,
    sigma_max: SigmaMax = None,
    rtol: Rtol = None,
    atol: Atol = None,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    batch_size: Batch = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    status: Status = False,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Turn data into latents, and report whether they look like the prior."""

    job = is_job(out, workers, status, as_json)
    if not job:
        check_latents_file(out)
    check_out(out, folder=job)
    given = conditions(label, condition)
    options = said(solver=solver, steps=steps, grid=grid, levels=levels_in(levels), sigma_min=sigma_min,
                   sigma_max=sigma_max, rtol=rtol, atol=atol, batch_size=batch_size)  # fmt: skip
    score = opened(model, trust, dtype)
    x = read_array(data, score)[0]
    check_number_of(given, len(x))
    full = guided(score, given, guidance)
    if job:
        into_folder(encode_all, full, x, out=out, as_json=as_json,
                    **options, **said(workers=workers, shard_size=shard_size))  # fmt: skip
        return
    with stoppable():
        z = encode_data(full, x, progress=not as_json, **options)
    save_latents(out, z)
    normal = score.learned != "bridge" and not score.masked and at_prior(score, z)
    verdict = _verdict(score, z) if normal else {}
    report(
        {"samples": len(z.x), "calls": call_range(z.calls), "solver": z.provenance["solver"], **verdict,
         "out": str(out)},
        as_json,
    )  # fmt: skip


def _verdict(model: ScoreModel, z: Solution) -> dict[str, object]:
    r"""Whether latents look like the prior."""

    known = latent_statistics(model, z)
    means = {f"{name}, mean": value for name, value in known.averages.items()}
    means |= {f"{name}, all entries": getattr(known.batch, name) for name in ("mean", "std")}
    return {"latents": known.batch.verdict, **means}


@app.command()
def decode(
    model: Model,
    data: Data,
    out: Out = None,
    solver: SolverName = None,
    steps: Steps = None,
    grid: Grid = None,
    levels: Levels = None,
    sigma_min: SigmaMin = None,
    rtol: Rtol = None,
    atol: Atol = None,
    label: Label = None,
    condition: Conditions = None,
    guidance: Guidance = None,
    denoise: Annotated[bool, typer.Option(help="End with one denoising.")] = True,
    batch_size: Batch = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    status: Status = False,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Turn latents of `scoresde encode` into data, on their grid unless steps are passed; or the z of pairs."""

    job = is_job(out, workers, status, as_json)
    check_out(out, suffixes=SUFFIXES, folder=job)
    options = said(solver=solver, steps=steps, grid=grid, levels=levels_in(levels), sigma_min=sigma_min,
                   rtol=rtol, atol=atol, batch_size=batch_size)  # fmt: skip
    score = guided(opened(model, trust, dtype), conditions(label, condition), guidance)
    if job and out is not None:
        latents = _starts(score, data) if data.is_file() else open_job(url_of(data))
        into_folder(decode_all, score, latents, out=out, as_json=as_json, denoise=denoise,
                    **options, **said(workers=workers, shard_size=shard_size))  # fmt: skip
        return
    check_form(score, out)
    z = _starts(score, data)
    with stoppable():
        s = decode_latents(score, z, denoise=denoise, progress=not as_json, **options)
    if not denoise:
        s = _clean(score, s)
    if out is not None:
        write_array(out, s.x, calls=s.calls.numpy(), **parts_of(score, s.x))
    report(
        {"samples": len(s.x), "calls": call_range(s.calls), "out": str(out) if out else None},
        as_json,
    )
    told("samples", out, as_json)


def _starts(model: ScoreModel, file: Path) -> Solution | Tensor:
    r"""Latents in a file, or for a model of pairs, the other halves: the entry z of an archive, or its data."""

    if model.learned != "bridge":
        return load_latents(file)
    arrays = open_arrays(file) if file.suffix == ".npz" else {}
    if "times" in arrays:
        return load_latents(file)
    z = torch.from_numpy(arrays["z"]) if "z" in arrays else read_array(file, model)[0]
    return z if model.transform is None else model.transform.inside("z", z)


def _clean(model: ScoreModel, s: Solution) -> Solution:
    r"""Samples that ended without a denoising in the units of the data, which may be the user's."""

    return s if s.provenance.get("in data units") else in_data_units(model, s)


@app.command()
def edit(
    model: Model,
    data: Data,
    target: Target = None,
    source: Source = None,
    condition: Conditions = None,
    noise_level: Annotated[float | None, typer.Option(help="Noise level, sigma/alpha.")] = None,
    strength: Annotated[float | None, typer.Option(help="Strength, in (0, 1].")] = None,
    strengths: Strengths = None,
    method: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}.")] = "encode",
    known: Known = None,
    way: Way = None,
    averages: Averages = None,
    chain: Chain = None,
    guidance: Guidance = None,
    solver: SolverName = None,
    steps: Steps = None,
    sigma_min: SigmaMin = None,
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    out: Out = None,
    plot: Plot = None,
    animate: Annotated[Path | None, typer.Option(help="The path of the edit, as a gif.")] = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    status: Status = False,
    trust: Trust = False,
    dtype: Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    r"""Turn data of one class into data of another, or redraw parts of it."""

    job = is_job(out, workers, status, as_json)
    check_out(out, suffixes=SUFFIXES, folder=job)
    check_out(animate)
    check_out(plot, suffixes=PICTURES)
    if method not in ("inpaint", "noise") and guidance is None:
        _check_classes(source, target)
    score = opened(model, trust, dtype)
    check_form(score, out, plot, animate)
    x, _ = read_array(data, score)
    options = said(solver=solver, steps=steps, sigma_min=sigma_min, rtol=rtol, atol=atol,
                   noise_level=noise_level, strength=strength, method=method, way=way, averages=averages,
                   chain=chain, progress=None if method == "flow" else not as_json)  # fmt: skip
    if strengths is not None:
        if strength is not None:
            raise ValueError("pass one of --strength and --strengths, but got both.")
        options["strength"] = read_array(strengths, score)[0]
    if known is not None:
        options["known"] = read_array(known, score)[0]
    if animate is not None:
        plots.check_gif(animate)
        options["path"] = True
    ends = _class("source", source, condition, len(x)), _class("target", target, condition, len(x))
    before, after, pivot = _models(score, ends, guidance, method)
    if job and out is not None:
        refuse(plot=plot, animate=animate)
        options.pop("progress", None)
        into_folder(edit_all, before, after, x, out=out, as_json=as_json, seed=seed,
                    **options | pivot, **said(workers=workers, shard_size=shard_size))  # fmt: skip
        return
    with stoppable():
        e = edit_data(before, after, x, seed=seed, **options | pivot)
    if out is not None:
        _write(score, out, data, e)
    if plot is not None:
        plots.before_after(plot, x, e)
    if animate is not None:
        plots.animate(animate, frames(score, e))
    _tell_of(e, x, {"out": out, "plot": plot, "animation": animate}, as_json)


def _tell_of(e: Solution, x: Tensor, files: dict[str, Path | None], as_json: bool) -> None:
    r"""Reports edits of x."""

    written = {name: str(file) for name, file in files.items() if file}
    change = (e.x - x).abs().square().mean().sqrt().item()
    calls = call_range(e.calls)
    report({"samples": len(x), "calls": calls, "rms change": change, **written}, as_json)
    told("edits", next(iter(written.values()), None), as_json)


def _write(model: ScoreModel, out: Path, data: Path, e: Solution) -> None:
    r"""Writes an edit of the data in a file."""

    known = json.dumps(_chained(e, data))
    write_array(out, e.x, calls=e.calls.numpy(), provenance=known, **parts_of(model, e.x))


def _chained(e: Solution, data: Path) -> dict[str, object]:
    r"""The provenance of an edit, with that of the file it is of, if this has one."""

    known = open_arrays(data).get("provenance") if data.suffix == ".npz" else None
    return {**e.provenance, **({} if known is None else {"origin": json.loads(str(known))})}


def _check_classes(source: str | None, target: str | None) -> None:
    r"""Refuses an edit that would not change the data."""

    if source == target:
        same = "neither --source nor --target is given" if target is None else f"both are {target}"
        raise ValueError(
            f"an edit leads from one class to another, but {same}, so the data would not change; pass "
            "--target, and --source if it is known."
        )


def _class(name: str, text: str | None, others: list[str] | None, count: int) -> dict[str, Tensor]:
    r"""The conditions of one end of an edit."""

    given = conditions(None, others)
    if text is not None:
        given["label"] = whole(f"--{name}", text)
    check_number_of(given, count)
    return given


def _models(
    score: ScoreModel,
    ends: tuple[dict[str, Tensor], dict[str, Tensor]],
    scale: str | None,
    method: str,
) -> tuple[ScoreModel, ScoreModel, dict[str, ScoreModel]]:
    r"""The models of both ends. Guidance applies to the target; "null" and "flow" guide both."""

    source, target = ends
    both = scale if method in ("null", "flow") and source else None
    pivot = {"pivot": guided(score, source, None)} if method == "null" else {}
    return guided(score, source, both), guided(score, target, scale), pivot
