r"""The search for a plan: solver, order and grid."""

import itertools
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import solvers as catalogue
from solvers import SemiLinear, Solver
from solvers.catalogue import label

from ..comparing.bench import BENCH, Bench, sample_shape
from ..comparing.cells import DEFAULT, MOMENTS, Cell, cells, check_choice, check_tolerance
from ..jobs.start import Workers, check_workers
from ..metrics import Distance, check_distances, energy_distance
from ..models.checks import check_count, check_data
from ..models.conditions import Condition, verb
from ..models.data_moments import suits
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.grids import model_grid
from ..runs.plan import Plan
from ..runs.progress import bar as progress_bar
from .judging import judge_all
from .learn import forms_of, learn
from .noisy import noisy_solvers, with_noise
from .objective import Objective
from .ranges import Models, Together, Valued, benches_of, models_of, objectives_of, workers_of
from .refine import refine
from .teacher import Teacher

GRIDS = ("rho", "log_snr", "tan", "asinh", "logistic")
SCREENED, TAUGHT, FINALISTS, SWEEPS = 20, 8, 3, 6
SMALL = 16  # samples of the first round


@verb(data=("data",))
def tune(  # noqa: D417
    model: Models,
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
    stochastic: bool = False,
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

    One plan may be for several models, such as those of one network under a range of guidance scales. It then
    has the least mean over models of the error relative to that of the catalogue's best plan (see
    :class:`.ranges.Together`), and reports its results on each model beside those of the plan that is made for
    the first model alone.

    With `learned`, the plan has weights of its own (see :mod:`.learn`): one for the error approaches the exact
    flow, and one for the energy distance has a last step that corrects errors of the model, too.

    With noise, a distance is minimised, too, over the amount of noise :math:`\eta` of each step, or over the
    window of "edm_churn" (see :mod:`.noisy`).

    Arguments:
        model: The score model, or a mapping from names or numbers, such as scales, to models whose states are
            alike. The budget is that of the one with the most calls.
        budget: The maximum number of calls per sample, the last denoising included.
        solvers: The solvers to choose from. By default, all deterministic solvers for diffusion models, and with
            `stochastic=True` also those with noise.
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
        stochastic: Whether plans may add noise, where a distance is minimised. Deterministic solvers may get
            some, too. It takes some hundreds of `samples` to tell what noise changes.
        reference_tolerance: The tolerance of the exact flow's samples.
        file: A JSON file of the results so far, from which an interrupted search continues.
        workers: The workers that share the plans to measure, as in :func:`scoresde.compare`.
        progress: Whether to show a progress bar.
        condition: The conditions of the model. The options are as in :func:`scoresde.compare`.

    Raises:
        ValueError: If no solver fits into the budget, or an option is invalid.

    Examples:
        >>> options = {"solvers": ["ddim", "dpmpp_2m"], "grids": ["rho"], "samples": 4, "held_out": 4}
        >>> plan = ss.tune(model, 3, **options, progress=False)
        >>> ss.sample(model, 2, plan=plan).calls
        tensor([3, 3])
    """

    options = BENCH.said(locals())
    models = models_of(model)
    _check_noise(stochastic, metric, learned, len(models))
    dearest = max(models.values(), key=lambda one: one.cost)
    workers = check_workers(workers)
    chosen = default_solvers(dearest, stochastic, learned) if solvers is None else solvers
    budget = check_count("budget", budget, at_least=2)
    check_tolerance("reference_tolerance", reference_tolerance, 0.1)
    check_choice(dearest, chosen, [budget], grids, [reference_tolerance], file)
    samples = check_count("samples", samples, at_least=4)
    held_out = check_count("held_out", held_out, at_least=4)
    data, distances = _distances(dearest, metric, data)
    start, shape = time.perf_counter(), sample_shape(dearest, data, samples)
    chooses, judges = halves(data) if metric != "error" else (data, data)
    benches = benches_of(models, options, shape, seed, reference_tolerance, distances, chooses)
    todo = _starts(dearest, chosen, budget, grids, stochastic=stochastic)
    setup = {
        "budget": budget,
        "metric": metric,
        "samples": samples,
        "seed": seed,
        "reference tolerance": reference_tolerance,
        "solvers": [label(catalogue.get(entry)) for entry in chosen],
        "grids": list(grids),
    }
    with progress_bar(total=len(todo), desc="tune", shown=progress) as bar:
        parts = objectives_of(benches, metric, data, setup, file, bar.update, workers)
        best, others, alone = _search_all(parts, todo, bar, learned, stochastic)
    judging = {n: replace(b.resized(held_out, seed + 1), data=judges) for n, b in benches.items()}
    figures = judge_all(judging, best, others, alone)
    figures |= {"metric": metric, "seconds of the search": time.perf_counter() - start,
                "plans measured": sum(part.measured for part in parts)}  # fmt: skip
    known = {str(part.setup["model"]) for part in parts}
    return replace(best, model=known.pop() if len(known) == 1 else "", figures=figures)


def _check_noise(stochastic: bool, metric: str, learned: bool, models: int) -> None:
    r"""Refuses searches that cannot be combined."""

    if stochastic and metric == "error":
        raise ValueError(
            "stochastic=True is for a distance to data, since the error compares samples with those of the flow, "
            "which has no noise; pass metric='energy' and data=, or leave it out."
        )
    if learned and (stochastic or models > 1):
        what = "stochastic=True" if stochastic else f"{models} models"
        raise ValueError(
            f"learned=True is for one model and plans without noise, so it cannot be combined with {what}; "
            "leave out one of the two."
        )


def _distances(
    model: ScoreModel, metric: str, data: Data | None
) -> tuple[Tensor | None, dict[str, Distance]]:
    r"""The data and the distances, after checking that they fit the model and the metric."""

    if not model.process.has_scales:
        raise ValueError(
            f"{model.process} has no noise levels with numbers alpha and sigma to search; use ss.compare."
        )
    distances = check_distances([metric] if metric != "error" else [], None)
    if distances and data is None:
        raise ValueError(f"metric={metric!r} is a distance to data; pass data=.")
    if data is None:
        return None, {}
    found, least = check_data(model, data, "data"), 4 if distances else 2
    if len(found) < least:
        how = "one half to choose and one to measure" if distances else "for the energy distance"
        raise ValueError(f"data must be at least {least} samples, {how}, but has {len(found)}.")
    return found, {"energy": energy_distance, **distances}


def halves(data: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Returns one half of the data to choose, and the other to measure."""

    assert data is not None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return data[order[::2].to(data.device)], data[order[1::2].to(data.device)]


def _starts(
    model: ScoreModel,
    chosen: Sequence[str | Solver],
    budget: int,
    grids: Sequence[str],
    stochastic: bool,
) -> list[Cell]:
    r"""The solvers and grids that a search starts from."""

    for name in chosen:
        solver = catalogue.get(name)
        if (solver.stochastic and not stochastic) or solver.even or not solver.fixed:
            kind = "solvers" if stochastic else "solvers without noise"
            other = solver.stochastic and not stochastic
            cure = ", or search by a distance with stochastic=True" if other else ""
            raise ValueError(
                f"a search is for {kind} that take any steps, but {solver} is not one; "
                f"measure it with ss.compare{cure}."
            )
    found = [cell for cell in cells(model, chosen, [budget], grids, ()) if not cell.refusal]
    if not found:
        raise ValueError(
            f"no solver fits into budget={budget} calls; pass at least {2 * model.cost}."
        )
    return found


def _search_all(
    parts: Sequence[Objective], todo: Sequence[Cell], bar: tqdm, learned: bool, stochastic: bool
) -> tuple[Plan, list[list[Plan]], Plan | None]:
    r"""The best plan, the best of the initial ones for each model, and that for the first model alone."""

    first = parts[0]
    chosen = [cell.options["solver"] for cell in todo]
    forms = forms_of(chosen, first.measure.metric) if learned else []
    try:
        with workers_of(parts):
            for part in parts:
                part.bench.look()
            if learned:
                others = [plan for _, plan in _screen(first, todo, bar)[:5]]
                budget = int(str(first.setup["budget"]))
                best = learn(first.bench, first.measure.metric, forms, budget, others[0], bar)
                return best, [others], None
            with _quietly(stochastic):
                best, of_each = _search(first, todo, bar, stochastic)
                if len(parts) > 1:
                    whole = Together(parts)
                    return *_search(whole, todo, bar, stochastic, [best]), best
    finally:  # also when the user interrupts it
        for part in parts:
            part.save()
    return best, of_each, None


def _quietly(stochastic: bool) -> AbstractContextManager[object]:
    r"""A context without warnings of too much noise, which a search for noise tries."""

    return warnings.catch_warnings(action="ignore") if stochastic else nullcontext()


def _search(
    objective: Valued,
    todo: Sequence[Cell],
    bar: tqdm,
    stochastic: bool,
    also: Sequence[Plan] = (),
) -> tuple[Plan, list[list[Plan]]]:
    r"""The best plan, and the best of the initial ones for each model."""

    ranked = _screen(objective, todo, bar)
    teachers = [Teacher.of(part.bench) for part in objective.parts]
    finalists = [*_finalists(objective, teachers, ranked, bar), *also]
    found = _own_grids(objective, finalists, bar)
    others = _best_of_each(objective, todo, bar)
    best = min(found, key=_value)[1]
    if not stochastic:
        return best, others
    noisy = with_noise(objective, [plan for _, plan in found], bar)
    return noisy, [[*plans, best] for plans in others]


def _value(found: tuple[float, Plan]) -> float:
    return found[0]


def _best_of_each(objective: Valued, todo: Sequence[Cell], bar: tqdm) -> list[list[Plan]]:
    r"""The best of the initial plans for each model, all of which are known, and the best without noise."""

    found = []
    for part in objective.parts:
        plans = [plan for _, plan in _screen(part, todo, bar)]
        quiet = [plan for plan in plans[5:] if not plan.noisy]
        none = all(plan.noisy for plan in plans[:5])
        found.append([*plans[:5], *(quiet[:1] if none else ())])
    return found


def default_solvers(model: ScoreModel, stochastic: bool = False, few: bool = False) -> list[str]:
    r"""Returns the solvers for diffusions that a model can be sampled with.

    Arguments:
        model: The model.
        stochastic: Whether to return those with noise, too.
        few: Whether to return only those that are compared by default.
    """

    found = noisy_solvers() if stochastic else []
    for name in (*DEFAULT, *MOMENTS) if few else catalogue.available():
        solver = catalogue.get(name)
        usable = suits(model.moments, solver.form)
        if solver.solves is SemiLinear and solver.fixed and not solver.stochastic and usable:
            found.append(name)
    return found


def _screen(objective: Valued, todo: Sequence[Cell], bar: tqdm) -> list[tuple[float, Plan]]:
    r"""All solvers on all grids, the best ones first, with their values."""

    plans = [Plan(cell.options) for cell in todo]
    if len(objective.parts) > 1:
        each = (_screen(part, todo, bar) for part in objective.parts)
        plans = list({plan.name: plan for ranked in each for _, plan in ranked}.values())
        bar.total += len(plans)
        return _ranked(plans, objective(plans))
    if objective.measure.metric == "error":  # for which few samples suffice
        plans = [plan for _, plan in _ranked(plans, objective(plans, SMALL))[:SCREENED]]
        bar.total += len(plans)
    return _ranked(plans, objective(plans))


def _ranked(plans: Sequence[Plan], values: Sequence[float]) -> list[tuple[float, Plan]]:
    return sorted(zip(values, plans, strict=True), key=lambda entry: entry[0])


def _finalists(
    objective: Valued,
    teachers: Sequence[Teacher],
    ranked: Sequence[tuple[float, Plan]],
    bar: tqdm,
) -> list[Plan]:
    r"""The best plans of different solvers, on named grids or the teacher's."""

    best: dict[str, Plan] = {}
    for _, plan in ranked:
        best.setdefault(label(plan.solver), plan)
    groups = []
    for plan in list(best.values())[:TAUGHT]:
        solver, steps = plan.solver, plan.options["steps"]
        taught = (times for teacher in teachers for times in teacher.grids(solver, steps))
        grids = [_named(objective.bench, plan), *taught]
        groups.append([_on(plan, times, objective.bench) for times in grids])
    plans = [plan for group in groups for plan in group]
    bar.total += len(plans)
    values = iter(objective(plans))
    found = [_ranked(group, [*itertools.islice(values, len(group))])[0] for group in groups]
    return [plan for _, plan in sorted(found, key=lambda entry: entry[0])[:FINALISTS]]


def _own_grids(objective: Valued, plans: Sequence[Plan], bar: tqdm) -> list[tuple[float, Plan]]:
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
