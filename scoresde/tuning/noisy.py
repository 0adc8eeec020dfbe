r"""The search for the noise of plans: one amount per step, or the window of churn.

Noise corrects the errors that a network made at higher noise levels, and costs accuracy in each step. Which of
both is larger shows only in a distance to data. All plans see the same keyed noise, so that their comparison is
paired. The best of many plans is partly the luckiest, so new noise decides how much of what was found is kept.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), section 4,
    | for what noise corrects, and appendix E.2, for a search of the window of churn
    | https://arxiv.org/abs/2206.00364
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TypeAlias

from tqdm import tqdm

import solvers
from solvers import Churn, SemiLinear
from solvers.catalogue import name_of

from ..runs.plan import Plan
from .objective import Measure
from .ranges import Valued

COMMON = (0.0, 0.3, 0.5, 0.7, 1.0, 1.4)  # amounts for all steps, which are tried first
FACTORS = (0.0, 0.7, 1.4)  # by which an amount is multiplied
FIRST = 0.4  # the amount that is tried where there is none
CHURN = {"amount": (0.0, 0.5, 0.7, 1.4, 2.0), "low": (0.5, 2.0), "high": (0.5, 2.0)}
SWEEPS = 3
# Added to the seed of the search, for the noise that decides; held-out noise has the next one:
AGAIN = (2, 3)
OPEN = ("consistency", "annealed_langevin")  # which no grid of a search suits
Found: TypeAlias = tuple[float, Plan]
Search: TypeAlias = Generator[Plan, float, list[Plan]]
Moves: TypeAlias = Generator[Plan, float, Found]


def noisy_solvers() -> list[str]:
    r"""Returns the stochastic solvers for diffusions that take any steps."""

    found = []
    for name in solvers.available():
        solver = solvers.get(name)
        usable = solver.stochastic and solver.fixed and not solver.even and name not in OPEN
        if usable and solver.solves is SemiLinear:
            found.append(name)
    return found


def with_noise(objective: Valued, plans: Sequence[Plan], bar: tqdm) -> Plan:
    r"""Returns the best of plans with own grids, whose noise is moved as long as that helps.

    The amounts of noise :math:`\eta` are first alike for all steps, and each is then moved in turn: to 0, to 0.7
    and to 1.4 times its value. The settings `amount`, `low` and `high` of churn are moved in the same way. One
    move of each plan is tried at a time, so that workers may share them. The plans as they were, those with the
    same amount everywhere, and those with one per step then meet on new noise.

    Arguments:
        objective: The distance to data.
        plans: The plans, with noise levels of their own.
        bar: The progress bar.
    """

    found = [plan for several in noise_moved(objective, plans, bar) for plan in several]
    known = {plan.name: plan for plan in found}
    return min(known.values(), key=lambda plan: _again(objective, plan))


def noise_moved(objective: Valued, plans: Sequence[Plan], bar: tqdm) -> list[list[Plan]]:
    r"""Returns for each plan what may be best: the plan, with one amount for all steps, and with one per step."""

    searches = [_search(plan) for plan in plans]
    asked = {k: next(search) for k, search in enumerate(searches)}
    found: dict[int, list[Plan]] = {}
    while asked:
        bar.total += len(asked)
        for (k, _), value in zip([*asked.items()], objective([*asked.values()]), strict=True):
            try:
                asked[k] = searches[k].send(value)
            except StopIteration as end:
                found[k] = end.value
                del asked[k]
    return [found[k] for k in range(len(plans))]


def _again(objective: Valued, plan: Plan) -> float:
    r"""The mean distance of a plan with new noise."""

    values = []
    for part in objective.parts:
        bench = part.bench
        for more in AGAIN:
            new = bench.resized(bench.shape[0], bench.seed + more)
            values.append(Measure(new, part.measure.metric)((plan, None)))
    return sum(values) / len(values)


def _search(plan: Plan) -> Search:
    r"""Yields the plans to try next, is sent their values, and returns those that may be best."""

    if isinstance(plan.solver, Churn):
        return _window(plan)
    if plan.noise_levels is not None and plan.solver.takes_eta:
        return _amounts(plan)
    return _as_it_is(plan)


def _as_it_is(plan: Plan) -> Search:
    yield plan
    return [plan]


def _amounts(plan: Plan) -> Search:
    r"""One amount of noise for each step."""

    assert plan.noise_levels is not None
    steps = len(plan.noise_levels) - 1
    best: Found = ((yield plan), plan)
    eta = [1.0 if plan.noisy else 0.0] * steps
    for amount in COMMON:
        best, eta = yield from _try(best, eta, [amount] * steps, _with_eta)
    moved = yield from _in_turn(best, eta, _moved_eta, _with_eta)
    return [plan, best[1], moved[1]]


def _moved_eta(eta: list[float], i: int) -> list[list[float]]:
    r"""The amounts to try for one step."""

    tried = [eta[i] * factor for factor in FACTORS] if eta[i] else [FIRST]
    return [[*eta[:i], _short(amount), *eta[i + 1 :]] for amount in tried]


def _with_eta(plan: Plan, eta: list[float]) -> Plan:
    r"""The plan with other amounts, on the same path of noise."""

    options = {name: value for name, value in plan.options.items() if name != "noise"}
    if any(eta):
        return replace(plan, options={**options, "eta": eta, "noise": "path"})
    return replace(plan, options={**options, "eta": 0.0})


def _window(plan: Plan) -> Search:
    r"""The settings of churn."""

    best: Found = ((yield plan), plan)
    start = [float(getattr(plan.solver, name)) for name in CHURN]
    moved = yield from _in_turn(best, start, _moved_window, _with_window)
    return [plan, moved[1]]


def _moved_window(settings: list[float], i: int) -> list[list[float]]:
    r"""The windows with another value of one setting."""

    factors = list(CHURN.values())[i]
    return [[*settings[:i], _short(settings[i] * f), *settings[i + 1 :]] for f in factors]


def _with_window(plan: Plan, settings: list[float]) -> Plan:
    r"""The plan with another window, by name if it has one."""

    known = solvers.get(plan.options["solver"])
    assert isinstance(known, Churn)
    if name_of(known) is not None:
        known = replace(known, name=str(known).split(":")[0])
    amount, low, high = settings
    changed = replace(known, amount=amount, low=low, high=high)
    return replace(plan, options={**plan.options, "solver": name_of(changed) or changed})


def _in_turn(
    best: Found,
    numbers: list[float],
    moves: Callable[[list[float], int], list[list[float]]],
    made: Callable[[Plan, list[float]], Plan],
) -> Moves:
    r"""Moves one number at a time, until none of them helps."""

    for _ in range(SWEEPS):
        before = best[0]
        for i in range(len(numbers)):
            for tried in moves(numbers, i):
                kept = numbers
                best, numbers = yield from _try(best, numbers, tried, made)
                if numbers is not kept:
                    break
        if not best[0] < before:
            break
    return best


def _try(
    best: Found,
    numbers: list[float],
    tried: list[float],
    made: Callable[[Plan, list[float]], Plan],
) -> Generator[Plan, float, tuple[Found, list[float]]]:
    r"""The better of two plans, and its numbers."""

    if tried == numbers:
        return best, numbers
    plan = made(best[1], tried)
    value = yield plan
    return ((value, plan), tried) if value < best[0] else (best, numbers)


def _short(number: float) -> float:
    r"""A number with four digits, as a file shows it."""

    return float(f"{number:.4g}")
