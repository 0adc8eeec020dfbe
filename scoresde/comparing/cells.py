r"""The entries of a comparison: a solver with a grid within a budget, or with a tolerance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import solvers
from solvers import SemiLinear, Solver
from solvers.catalogue import label, name_of

from ..models.checks import check_count, check_number, check_several
from ..models.data_moments import NEEDS, suits
from ..models.learned import check_solver
from ..models.score_model import ScoreModel
from ..runs.grids import default_grid, spacing
from ..runs.options import Options
from ..runs.plan import Plan

DEFAULT = (
    "ddim", "heun", "dpm_2", "edm_heun", "dpmpp_2m", "dpmpp_3m", "deis_3", "ipndm_2", "ipndm_4", "unipc",
    "unipc_3", "foresight_2", "exponential",
)  # fmt: skip
MOMENTS = ("moment_2", "moment_ipndm_2", "moment_ipndm_4", "moment_foresight_2")
MEASURED = ("measured_2", "measured_ipndm_2", "measured_ipndm_3")
GENERAL = ("euler", "heun", "rk4", "dopri5")  # for any process
TOLERANCE = "tolerance"  # replaces the grid if the solver chooses its steps


@dataclass(frozen=True)
class Cell:
    r"""One entry of a comparison.

    Arguments:
        solver: The name of the solver, or of the plan.
        grid: The name of the grid, or :data:`TOLERANCE`.
        budget: The maximum number of calls, or the tolerance.
        options: The options of :func:`scoresde.sample`.
        stochastic: Whether the solver adds noise.
        refusal: Why there is nothing to measure, in words.
    """

    solver: str
    grid: str
    budget: float
    options: Options
    stochastic: bool = False
    refusal: str = ""

    @property
    def key(self) -> tuple[str, str, float]:
        r"""The key that identifies a cell."""

        return self.solver, self.grid, float(self.budget)


def default_solvers(model: ScoreModel) -> tuple[str, ...]:
    r"""Returns the solvers that are worth trying for a model."""

    if not model.process.has_scales:
        return GENERAL
    return (
        *DEFAULT,
        *(name for name in (*MOMENTS, *MEASURED) if suits(model.moments, solvers.get(name).form)),
    )


def default_grids(model: ScoreModel) -> tuple[str, ...]:
    r"""Returns the grid to measure on by default."""

    return (default_grid(model),)


def steps_within(solver: Solver, calls: int, cost: int = 1) -> int:
    r"""Returns the maximum number of steps of a solver within a budget, the last denoising included.

    Arguments:
        solver: The solver.
        calls: The budget.
        cost: The network calls per model evaluation.
    """

    steps, last = 0, 0 if solver.can.open else 1
    while (solver.calls(steps + 1) + last) * cost <= calls and steps < calls:
        steps += 1
    return steps


def cells(
    model: ScoreModel,
    chosen: Sequence[str | Solver | Plan],
    budgets: Sequence[int],
    grids: Sequence[str],
    tolerances: Sequence[float],
) -> list[Cell]:
    r"""Returns all entries of a comparison.

    Arguments:
        model: The model.
        chosen: Solvers and plans.
        budgets: Budgets of calls, for solvers on grids.
        grids: The grids.
        tolerances: Tolerances, for solvers that choose their steps.
    """

    found: dict[tuple[str, str, float], Cell] = {}
    for entry in chosen:
        if isinstance(entry, Plan):
            several = iter((_planned(entry),))
        else:
            several = _cells_of(model, solvers.get(entry), budgets, grids, tolerances)
        for cell in several:
            found.setdefault(cell.key, cell)
    return list(found.values())


def check_choice(
    model: ScoreModel,
    chosen: Sequence[str | Solver | Plan],
    budgets: Sequence[int],
    grids: Sequence[str],
    tolerances: Sequence[float],
    file: object = None,
) -> None:
    r"""Refuses invalid solvers, budgets, grids and tolerances, before anything is run."""

    lists = {"solvers": chosen, "budgets": budgets, "grids": grids, "tolerances": tolerances}
    for name, values in lists.items():
        check_several(name, values)
    for budget in budgets:
        check_count("each of budgets", budget, at_least=2)
    for tolerance in tolerances:
        check_tolerance("each of tolerances", tolerance)
    for grid in grids:
        spacing(grid)
    check_labels(chosen, file)
    for entry in chosen:
        solver = entry.solver if isinstance(entry, Plan) else solvers.get(entry)
        check_solver(model, solver.name, noisy=solver.stochastic)
        if not suits(model.moments, solver.form):
            what, how = NEEDS[solver.form]
            raise ValueError(
                f"{solver} needs {what}: set model.moments = {how}, or leave the solver out."
            )


def check_tolerance(name: str, value: float, most: float = 1.0) -> None:
    r"""Refuses anything but a tolerance."""

    check_number(name, value)
    if not 0 < value <= most:
        raise ValueError(f"{name} must lie in (0, {most:g}], but is {value}.")


def check_labels(chosen: Sequence[str | Solver | Plan], file: object) -> None:
    r"""Refuses solvers with the same label, and those that a file cannot store."""

    known: dict[str, Solver] = {}
    for solver in (solvers.get(entry) for entry in chosen if not isinstance(entry, Plan)):
        if known.setdefault(label(solver), solver) != solver:
            raise ValueError(
                f"two solvers are named {label(solver)!r}; give one of them another name."
            )
        if file is not None and name_of(solver) is None:
            raise ValueError(
                f"file= keeps only names of solvers, and {solver} differs from the solver of that name in "
                "the catalogue, so the file could be taken for results of the other; leave out file=, or "
                "the solver."
            )


def options_of(model: ScoreModel, solver: Solver) -> Options:
    r"""Returns the options of a solver in every cell."""

    options: Options = {"solver": name_of(solver) or solver}
    if solver.solves is not SemiLinear and model.process.has_levels:
        options["clock"] = "log_snr"
    if solver.stochastic:
        options["noise"] = "path"
    return options


def _cells_of(
    model: ScoreModel,
    solver: Solver,
    budgets: Sequence[int],
    grids: Sequence[str],
    tolerances: Sequence[float],
) -> Iterator[Cell]:
    options, name, noisy = options_of(model, solver), label(solver), solver.stochastic
    if solver.fixed:
        even = ("even",) if solver.even else grids
        for grid in even:
            where = {} if solver.even else {"grid": grid}
            for budget in budgets:
                steps = steps_within(solver, budget, model.cost)
                refusal = "" if steps else f"no step fits into {budget} calls"
                yield Cell(
                    name, grid, budget, {**options, **where, "steps": steps}, noisy, refusal
                )
    if solver.adaptive:
        for tolerance in tolerances:
            both = {"rtol": tolerance, "atol": tolerance}
            yield Cell(name, TOLERANCE, tolerance, {**options, **both}, noisy)


def _planned(plan: Plan) -> Cell:
    return Cell(plan.name, "plan", plan.figures.get("calls", 0), {"plan": plan}, plan.noisy)
