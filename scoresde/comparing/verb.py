r"""Work and precision of solvers on one model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from solvers import Solver

from ..metrics import Distance, check_distances
from ..models.checks import check_count, check_data, check_several
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..runs.plan import Plan, describe_function, describe_setup, digest
from ..runs.progress import bar
from ..runs.takes import check_model
from .bench import BENCH, Bench, bind, sample_shape
from .cells import cells, check_choice, check_tolerance, default_grids, default_solvers
from .comparison import Comparison
from .reference import TOLERANCE

BUDGETS = (5, 8, 10, 20, 50)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)


@verb
def compare(  # noqa: D417
    model: ScoreModel,
    solvers: Sequence[str | Solver | Plan] | None = None,
    budgets: Sequence[int] = BUDGETS,
    *,
    grids: Sequence[str] | None = None,
    tolerances: Sequence[float] = TOLERANCES,
    metrics: Sequence[str] | Mapping[str, Distance] | None = None,
    data: Tensor | None = None,
    features: nn.Module | None = None,
    samples: int = 256,
    seed: int = 0,
    reference_tolerance: float = TOLERANCE,
    file: str | Path | None = None,
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
    r"""Measures solvers and grids on a model: errors and distances against network calls.

    All start from the same noise, and stochastic solvers follow the same Brownian paths. The error of
    a sample is its root mean square difference from the exact flow, or the exact SDE on its path, in
    the units of data; the reference says how exact it is. Noise of other kinds (`er_sde`, `sa`,
    `edm_churn`, Langevin) leads to other samples, which have distances alone. A solver that fails gets a
    row whose status says why.

    Arguments:
        model: The score model.
        solvers: Names, solvers and plans. By default, a choice of the good ones.
        budgets: The calls per sample that solvers on grids may take, the last denoising included.
        grids: The grids, such as "rho", "log_snr", "tan", "asinh" and "logistic". By default, that of sampling.
        tolerances: Tolerances for solvers that choose their steps.
        metrics: "error", and distances to `data`: "energy", "sliced_wasserstein", "c2st", and with
            `features` "fid" and "kid"; or a mapping from names to functions of samples and data, which
            are measured beside the error. By default, the error, and the energy distance if there is
            data.
        data: Data, with shape (M, *).
        features: A network from samples to features.
        samples: The number of samples.
        seed: The seed of their noise.
        reference_tolerance: The tolerance of the reference.
        file: A JSON file, written after each cell. What it holds already is not measured again.
        progress: Whether to show a progress bar.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that every run
            of the measurement can share.

    Raises:
        ValueError, TypeError: If an argument does not fit, before anything is run.

    Examples:
        >>> c = ss.compare(model, ["ddim", "dpmpp_2m"], [4], samples=4, progress=False)
        >>> [(row.solver, row.calls) for row in c.rows]
        [('ddim', 4.0), ('dpmpp_2m', 4.0)]
    """

    options = BENCH.said(locals())
    check_model(model)
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
    known = Comparison.resume(file, Comparison(setup))
    rows = {row.key: row for row in known.rows}
    bench.look()
    if data is not None and not known.floors:
        known = replace(known, floors=bench.floors(), exact=bench.exact_distances())
    for cell in bar([c for c in todo if c.key not in rows], desc="compare", shown=progress):
        rows[cell.key] = bench.row(cell)
        references = {**known.references, **bench.words}
        known = replace(known, references=references, rows=tuple(rows.values()))
        if file is not None:
            known.save(file)
    return replace(known, rows=tuple(rows[cell.key] for cell in todo))


def _functions(metrics: object, features: nn.Module | None) -> list[str]:
    r"""What tells the user's own functions and features from others."""

    own = list(metrics.values()) if isinstance(metrics, Mapping) else []
    sketches = [] if features is None else [digest(v) for v in features.state_dict().values()]
    return [*map(describe_function, own), *sketches]


def _distances(
    metrics: Sequence[str] | Mapping[str, Distance] | None,
    data: Tensor | None,
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
