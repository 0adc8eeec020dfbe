r"""Work and precision of solvers on a model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from solvers import Solver

from ..jobs.spread import Spread
from ..jobs.start import Workers, check_workers
from ..metrics import Distance, check_distances
from ..models.checks import check_count, check_data, check_several
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.continued import describe_setup
from ..runs.plan import Plan, describe_function, digest
from ..runs.progress import bar
from ..runs.takes import check_model
from .bench import BENCH, Bench, bind, sample_shape
from .cells import Cell, cells, check_choice, check_tolerance, default_grids, default_solvers
from .comparison import Comparison
from .reference import TOLERANCE
from .row import Row

BUDGETS = (5, 8, 10, 20, 50)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)


@verb(data=("data",))
def compare(  # noqa: D417
    model: ScoreModel,
    solvers: Sequence[str | Solver | Plan] | None = None,
    budgets: Sequence[int] = BUDGETS,
    *,
    grids: Sequence[str] | None = None,
    tolerances: Sequence[float] = TOLERANCES,
    metrics: Sequence[str] | Mapping[str, Distance] | None = None,
    data: Data | None = None,
    features: nn.Module | None = None,
    samples: int = 256,
    seed: int = 0,
    reference_tolerance: float = TOLERANCE,
    file: str | Path | None = None,
    workers: Workers = None,
    progress: bool = True,
    max_step: float | None = None,
    first_step: float | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    max_calls: int | None = None,
    t_min: float | None = None,
    denoise: bool = True,
    **condition: Condition,
) -> Comparison:
    r"""Measures errors and distances of solvers and grids on a model, against network calls.

    All runs start from the same noise, and stochastic solvers follow the same Brownian paths. The error of a
    sample is its root mean square difference from the exact flow, or from the exact SDE on its path, in units of
    the data; the accuracy of the reference is reported. Solvers with other kinds of noise (`er_sde`, `sa`,
    `edm_churn`, Langevin) lead to other samples, for which only distances are measured. A solver that fails gets
    a row whose status gives the reason.

    Arguments:
        model: The score model.
        solvers: Names, solvers and plans. By default, a selection of good ones.
        budgets: The calls per sample that solvers on grids may take, the last denoising included.
        grids: The grids, such as "rho", "log_snr", "tan", "asinh" and "logistic". By default, the one of
            :func:`scoresde.sample`.
        tolerances: Tolerances for solvers that choose their steps.
        metrics: "error", and distances to `data`: "energy", "sliced_wasserstein" and "c2st", and with `features`
            also "fid" and "kid"; or a mapping from names to functions of samples and data, which are measured in
            addition to the error. By default, the error, and the energy distance if there is data.
        data: Data, with shape (M, *).
        features: A network from samples to features.
        samples: The number of samples.
        seed: The seed of their noise.
        reference_tolerance: The tolerance of the reference.
        file: A JSON file, which is written after each cell. Cells that it already holds are not measured again.
        workers: The number of processes on this machine that share the cells, "ray" for a Ray cluster that is
            there or is started here, or the address of one, as `ray://HOST:10001`. By default, this process. Each
            has one thread; seconds and memory are those of the worker, beside others.
        progress: Whether to show a progress bar.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that every run
            of the measurement can share.

    Raises:
        ValueError, TypeError: If an argument is invalid, before anything is run.

    Examples:
        >>> c = ss.compare(model, ["ddim", "dpmpp_2m"], [4], samples=4, progress=False)
        >>> [(row.solver, row.calls) for row in c.rows]
        [('ddim', 4.0), ('dpmpp_2m', 4.0)]
    """

    options = BENCH.said(locals())
    check_model(model)
    workers = check_workers(workers)
    chosen = default_solvers(model) if solvers is None else solvers
    where = default_grids(model) if grids is None else grids
    check_choice(model, chosen, budgets, where, tolerances, file)
    check_tolerance("reference_tolerance", reference_tolerance, 0.1)
    samples = check_count("samples", samples, at_least=4)
    names, distances = _distances(metrics, data, features)
    if data is not None:
        data = check_data(model, data, "data", None, None)
    model, options = bind(model, options, samples)
    todo = cells(model, chosen, budgets, where, tolerances)
    setup = {
        **describe_setup(model, data, options),
        "samples": samples,
        "seed": seed,
        "reference tolerance": reference_tolerance,
        "metrics": names,
        "functions": _functions(metrics, features),
    }
    shape, errors = sample_shape(model, data, samples), "error" in names
    bench = Bench(model, shape, seed, reference_tolerance, distances, data, options, errors)
    spread = Spread(bench, workers, _words, bench.parts)
    known = Comparison.resume(file, Comparison(setup), model)
    bench.look()
    if data is not None and not known.floors:
        known = replace(known, floors=bench.floors(), exact=bench.exact_distances())
    return _measured(bench, known, todo, file, spread, progress)


def _measured(
    bench: Bench,
    known: Comparison,
    todo: Sequence[Cell],
    file: str | Path | None,
    spread: Spread[Cell, Row],
    progress: bool,
) -> Comparison:
    r"""The comparison with the cells that it lacks; its file has each as soon as it is measured."""

    rows, asked = {row.key: row for row in known.rows}, [cell.key for cell in todo]
    left = [cell for cell in todo if cell.key not in rows]
    order = [*(key for key in rows if key not in asked), *asked]
    bench.prepare(left)
    known = replace(known, references={**known.references, **bench.words})
    with spread, bar(total=len(left), desc="compare", shown=progress) as line:
        for cell, row in spread(left):
            rows[cell.key] = row
            line.update()
            known = replace(known, rows=tuple(rows[key] for key in order if key in rows))
            if file is not None:
                known.save(file)
    return replace(known, rows=tuple(rows[key] for key in asked))


def _words(cell: Cell) -> str:
    return f"{cell.solver} ({cell.grid}, {cell.budget:g})"


def _functions(metrics: object, features: nn.Module | None) -> list[str]:
    r"""The keys that identify the user's own functions and features."""

    own = list(metrics.values()) if isinstance(metrics, Mapping) else []
    sketches = [] if features is None else [digest(v) for v in features.state_dict().values()]
    return [*map(describe_function, own), *sketches]


def _distances(
    metrics: Sequence[str] | Mapping[str, Distance] | None,
    data: Data | None,
    features: nn.Module | None,
) -> tuple[list[str], dict[str, Distance]]:
    r"""The names of the metrics, and the distances among them."""

    if metrics is None:
        metrics = ("error",) if data is None else ("error", "energy")
    if isinstance(metrics, Mapping):
        names, distances = ["error", *metrics], dict(metrics)
    else:
        check_several("metrics", metrics)
        names = list(metrics)
        distances = check_distances([n for n in names if n != "error"], features)
    for name, distance in distances.items():
        if not callable(distance):
            raise TypeError(f"metric {name!r} must be a function of samples and data.")
    if distances and data is None:
        raise ValueError(f"metrics={list(distances)} are distances to data; pass data=.")
    return names, distances
