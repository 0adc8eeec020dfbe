r"""The search for a plan: solver, order and grid."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor
from tqdm import tqdm

import solvers as catalogue
from solvers import SemiLinear, Solver
from solvers.catalogue import label

from ..comparing.bench import BENCH, Bench, bind, sample_shape, spread
from ..comparing.cells import DEFAULT, MOMENTS, Cell, cells, check_choice, check_tolerance
from ..comparing.reference import rms
from ..jobs.start import Workers, check_workers
from ..metrics import Distance, check_distances, energy_distance
from ..models.checks import check_count, check_data
from ..models.conditions import Condition, verb
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..processes.custom import NonlinearProcess
from ..runs.continued import describe_setup
from ..runs.grids import model_grid
from ..runs.options import Options
from ..runs.plan import Plan
from ..runs.progress import bar as progress_bar
from ..runs.takes import check_model
from .learn import forms_of, learn
from .objective import Measure, Objective
from .refine import refine
from .teacher import Teacher

GRIDS = ("rho", "log_snr", "tan", "asinh", "logistic")
SCREENED, TAUGHT, FINALISTS, SWEEPS = 20, 8, 3, 6
SMALL = 16  # samples of the first round


@verb(data=("data",))
def tune(  # noqa: D417
    model: ScoreModel,
    budget: int,
    *,
    solvers: Sequence[str | Solver] | None = None,
    grids: Sequence[str] = GRIDS,
    metric: str = "error",
    data: Data | None = None,
    samples: int = 64,
    seed: int = 0,
    held_out: int = 256,
    learned: bool = False,
    reference_tolerance: float = 1e-4,
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
) -> Plan:
    r"""Searches for the best plan within a budget of network calls per sample.

    First, every solver is tried on every grid, with few samples and then with more. The best ones get grids that
    are fitted to the model, as in Align Your Steps (AYS): by dynamic programming over a teacher's path (see
    :mod:`.teacher`), after which each time is moved as long as that helps. The plan reports its result on
    held-out noise, beside the best of the named grids.

    With `learned`, the plan has weights of its own (see :mod:`.learn`): one for the error approaches the exact
    flow, and one for the energy distance has a last step that corrects errors of the model, too.

    Arguments:
        model: The score model.
        budget: The maximum number of calls per sample, the last denoising included.
        solvers: The solvers to choose from. By default, all deterministic solvers for diffusion models.
        grids: The initial grids.
        metric: The metric to minimise: "error", the mean root mean square difference between samples and those
            of the exact flow; or a distance to data, as in :func:`scoresde.compare`.
        data: Data, with shape (M, *), for a distance (one half is used to choose, the other to measure), and to
            report the energy distance.
        samples: The number of samples for the choice of solvers and grids.
        seed: The seed of their noise; held-out samples have the next one.
        held_out: The number of held-out samples, on which the plan is measured.
        learned: Whether to learn the weights, too, for the metric "error" or "energy". The linear part is that of
            one of the solvers, and `grids` are for the catalogue alone.
        reference_tolerance: The tolerance of the exact flow's samples.
        file: A JSON file of the results so far, from which an interrupted search continues.
        workers: The workers that share the plans to measure, as in :func:`scoresde.compare`.
        progress: Whether to show a progress bar.
        condition: The conditions of the model. The options are as in :func:`scoresde.compare`.

    Raises:
        ValueError: If no solver fits into the budget, or an option is invalid.

    References:
        | Align Your Steps (Sabour et al., 2024), section 3
        | https://arxiv.org/abs/2404.14507
        | S4S: Solving for a Diffusion Model Solver (Frankel et al., 2025), section 3
        | https://arxiv.org/abs/2502.17423

    Examples:
        >>> options = {"solvers": ["ddim", "dpmpp_2m"], "grids": ["rho"], "samples": 4, "held_out": 4}
        >>> plan = ss.tune(model, 3, **options, progress=False)
        >>> ss.sample(model, 2, plan=plan).calls
        tensor([3, 3])
    """

    options = BENCH.said(locals())
    check_model(model)
    workers = check_workers(workers)
    chosen = default_solvers(model, few=learned) if solvers is None else solvers
    budget = check_count("budget", budget, at_least=2)
    check_tolerance("reference_tolerance", reference_tolerance, 0.1)
    check_choice(model, chosen, [budget], grids, [reference_tolerance], file)
    samples = check_count("samples", samples, at_least=4)
    held_out = check_count("held_out", held_out, at_least=4)
    data, distances = _distances(model, metric, data)
    model, options = bind(model, options, samples)
    start, shape = time.perf_counter(), sample_shape(model, data, samples)
    chooses, judges = halves(data) if metric != "error" else (data, data)
    bench = Bench(model, shape, seed, reference_tolerance, distances, chooses, options)
    todo = _starts(model, chosen, budget, grids)
    if not todo:
        raise ValueError(f"no solver fits into budget={budget} calls; pass at least 2.")
    setup = {
        **describe_setup(model, data, options),
        "budget": budget,
        "metric": metric,
        "samples": samples,
        "seed": seed,
        "reference tolerance": reference_tolerance,
        "solvers": [label(catalogue.get(entry)) for entry in chosen],
        "grids": list(grids),
    }
    where = None if file is None else Path(file)
    with progress_bar(total=len(todo), desc="tune", shown=progress) as bar:
        objective = Objective(Measure(bench, metric), where, setup, bar.update, workers)
        best, others = _search(objective, todo, bar, budget, learned)
    judge = replace(bench.resized(held_out, seed + 1), data=judges)
    figures = _judge(judge, best, others)
    figures |= {"metric": metric, "seconds of the search": time.perf_counter() - start,
                "plans measured": objective.measured}  # fmt: skip
    return replace(best, model=setup["model"], figures=figures)


def _distances(
    model: ScoreModel, metric: str, data: Data | None
) -> tuple[Tensor | None, dict[str, Distance]]:
    r"""The data and the distances, after checking that they fit the model and the metric."""

    if isinstance(model.process, NonlinearProcess):
        raise ValueError(f"{model.process} has no noise levels to search; use ss.compare.")
    distances = check_distances([metric] if metric != "error" else [], None)
    if distances and data is None:
        raise ValueError(f"metric={metric!r} is a distance to data; pass data=.")
    if data is None:
        return None, {}
    return check_data(model, data, "data"), {"energy": energy_distance, **distances}


def halves(data: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Returns one half of the data to choose, and the other to measure."""

    assert data is not None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return data[order[::2].to(data.device)], data[order[1::2].to(data.device)]


def _starts(
    model: ScoreModel, chosen: Sequence[str | Solver], budget: int, grids: Sequence[str]
) -> list[Cell]:
    r"""The solvers and grids that a search starts from."""

    for name in chosen:
        solver = catalogue.get(name)
        if solver.stochastic or solver.even or not solver.fixed:
            raise ValueError(
                f"a search is for solvers without noise that take any steps, but {solver} is not one; "
                "measure it with ss.compare."
            )
    return [cell for cell in cells(model, chosen, [budget], grids, ()) if not cell.refusal]


def _search(
    objective: Objective, todo: Sequence[Cell], bar: tqdm, budget: int, learned: bool
) -> tuple[Plan, list[Plan]]:
    r"""The best plan, and the best of the initial ones."""

    metric, solvers = objective.measure.metric, [cell.options["solver"] for cell in todo]
    forms = forms_of(solvers, metric) if learned else []
    try:
        with objective.spread:
            objective.bench.look()
            ranked = _screen(objective, todo, bar)
            others = [plan for _, plan in ranked[:5]]
            if forms:
                return learn(objective.bench, metric, forms, budget, others[0], bar), others
            teacher = Teacher.of(objective.bench)
            finalists = _finalists(objective, teacher, ranked, bar)
            best = min(_own_grids(objective, finalists, bar), key=lambda found: found[0])[1]
    finally:  # also when the user interrupts it
        objective.save()
    return best, others


def default_solvers(model: ScoreModel, *, few: bool = False) -> list[str]:
    r"""Returns the deterministic solvers for diffusions that a model can be sampled with.

    Arguments:
        model: The model.
        few: Whether to return only those that are compared by default.
    """

    found: list[str] = []
    for name in (*DEFAULT, *MOMENTS) if few else catalogue.available():
        solver = catalogue.get(name)
        usable = model.moments is not None or solver.form != "moments"
        if solver.solves is SemiLinear and solver.fixed and not solver.stochastic and usable:
            found.append(name)
    return found


def _screen(objective: Objective, todo: Sequence[Cell], bar: tqdm) -> list[tuple[float, Plan]]:
    r"""All solvers on all grids, the best ones first, with their values."""

    plans = [Plan(cell.options) for cell in todo]
    if objective.measure.metric == "error":  # for which few samples suffice
        plans = [plan for _, plan in _ranked(plans, objective(plans, SMALL))[:SCREENED]]
        bar.total += len(plans)
    return _ranked(plans, objective(plans))


def _ranked(plans: Sequence[Plan], values: Sequence[float]) -> list[tuple[float, Plan]]:
    return sorted(zip(values, plans, strict=True), key=lambda entry: entry[0])


def _finalists(
    objective: Objective, teacher: Teacher, ranked: Sequence[tuple[float, Plan]], bar: tqdm
) -> list[Plan]:
    r"""The best plans of different solvers, on named grids or the teacher's."""

    best: dict[str, Plan] = {}
    for _, plan in ranked:
        best.setdefault(label(plan.solver), plan)
    groups = []
    for plan in list(best.values())[:TAUGHT]:
        solver, steps = plan.solver, plan.options["steps"]
        grids = [_named(objective.bench, plan), *teacher.grids(solver, steps)]
        groups.append([_on(plan, times, objective.bench) for times in grids])
    plans = [plan for group in groups for plan in group]
    bar.total += len(plans)
    values = iter(objective(plans))
    found = [_ranked(group, [*itertools.islice(values, len(group))])[0] for group in groups]
    return [plan for _, plan in sorted(found, key=lambda entry: entry[0])[:FINALISTS]]


def _own_grids(objective: Objective, plans: Sequence[Plan], bar: tqdm) -> list[tuple[float, Plan]]:
    r"""The values of plans with refined grids, and these plans."""

    grids = [torch.tensor(plan.noise_levels, dtype=torch.float64) for plan in plans]
    bar.total += sum(2 * SWEEPS * (len(levels) - 2) for levels in grids)

    def on(plan: Plan, some: Tensor) -> Plan:
        return replace(plan, noise_levels=tuple(some.tolist()))

    refined = refine(
        lambda asked: objective([on(plans[k], some) for k, some in asked]), grids, sweeps=SWEEPS
    )
    return [
        (value, on(plan, levels)) for plan, (levels, value) in zip(plans, refined, strict=True)
    ]


def _named(bench: Bench, plan: Plan) -> Tensor:
    r"""The times of a named grid."""

    process = bench.model.process
    stop = bench.options.get("t_min") or start_of(bench.model, "sampling")
    grid, steps = plan.options["grid"], plan.options["steps"]
    return model_grid(bench.model, grid, process.t_max, stop, steps)


def _on(plan: Plan, times: Tensor, bench: Bench) -> Plan:
    r"""The plan with other times."""

    options = {k: v for k, v in plan.options.items() if k not in ("grid", "steps")}
    levels = torch.exp(-bench.model.process.log_snr(times))
    return Plan(options, tuple(levels.tolist()))


class Reached(TypedDict):
    r"""The results of a plan."""

    plan: str
    options: Options
    calls: float
    error: dict[str, float]
    distances: dict[str, tuple[float, float]]


def _judge(bench: Bench, best: Plan, others: Sequence[Plan]) -> dict[str, object]:
    r"""The results of a plan and others with held-out noise."""

    def reach(plan: Plan) -> Reached:
        s = bench.run(plan=plan)
        error = rms(s.x, bench.reference().x)
        return {"plan": str(plan), "options": plan.plain, "calls": s.calls.double().mean().item(),
                "error": {"mean": error.mean().item(), **spread(error)},
                "distances": bench.distances_of(s.x)}  # fmt: skip

    mine = reach(best)
    return {
        "calls": mine["calls"],
        "error": mine["error"],
        "distances": mine["distances"],
        "samples": bench.shape[0],
        "seed": bench.seed,
        "of the exact flow": bench.distances_of(bench.reference().x),
        "best before": [reach(plan) for plan in others],
    }
