r"""Plans with learned weights.

The steps of such a plan use all values so far, with weights fitted to the exact flow (:mod:`.student`). The
first step, from t_max, needs no call, because Gaussian data is known there, and the last one leads to the samples,
with no denoising after it. So a budget of n calls buys n noise levels, which are moved as long as that helps. For
a distance to data, the last step is changed (:mod:`.closing`).

Weights are fitted to one half of the samples, and plans are judged by the other half.

References:
    | S4S: Solving for a Diffusion Model Solver (Frankel et al., 2025), section 3, for learned levels
    | https://arxiv.org/abs/2502.17423
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from solvers import Solver, get
from solvers.methods.exponential import ExponentialMultistep

from ..comparing.bench import Bench
from ..models.scale import scale_of
from ..runs.plan import Plan
from .closing import closing, distance
from .exact_path import Exact
from .refine import refine
from .student import Student

METRICS = ("error", "energy")
HIGHEST, LOWEST = (10.0, 30.0), (0.2, 0.08)  # levels of initial grids, over the scale of the data
WIDTH = 0.4  # where their spacing bends, over that scale
NEAR = 1.25  # the least ratio to the levels at both ends of a run
REFINED, SWEEPS = 2, 5


def forms_of(chosen: Sequence[str | Solver], metric: str) -> list[str]:
    r"""Returns the linear parts of multistep solvers, for plans with learned weights.

    Raises:
        ValueError: If none of the solvers is one, or weights cannot be learned for the metric.
    """

    if metric not in METRICS:
        raise ValueError(
            f"learned=True is for {' and '.join(METRICS)}, but metric is {metric!r}; leave it out, or pass one "
            "of these."
        )
    known = [get(solver) for solver in chosen]
    several = [solver for solver in known if isinstance(solver, ExponentialMultistep)]
    if not several:
        raise ValueError(
            f"learned=True is for multistep solvers, but {', '.join(map(str, known))} are none; add one to "
            "solvers=, such as 'ddim'."
        )
    return sorted({"moments" if s.form == "moments" else "data" for s in several}, reverse=True)


def learn(
    bench: Bench, metric: str, forms: Sequence[str], budget: int, start: Plan, bar: tqdm
) -> Plan:
    r"""Returns the best plan with learned weights, or `start` if that is better.

    Arguments:
        bench: The model and its start. Twice as many samples are drawn, and more for a distance.
        metric: "error" or "energy".
        forms: The linear parts to try.
        budget: The maximum number of calls per sample.
        start: A plan.
        bar: The progress bar.
    """

    twice, calls = bench.resized(2 * bench.shape[0]), max(budget // bench.model.cost, 1)
    exact = Exact.of(twice)
    first, last = torch.exp(-bench.model.process.log_snr(exact.times[[0, -1]])).tolist()
    grids = initial(first, last, scale_of(bench.model), calls)
    students = [Student(twice, exact, form) for form in forms]
    bar.total += len(students) * len(grids)

    def value(student: Student, levels: Tensor) -> float:
        bar.update()
        return student(levels)

    tried = [(value(student, grid), student, grid) for student in students for grid in grids]
    if metric != "error":
        plans = [closing(bench, student.plan(grid)) for _, student, grid in tried]
        plan, least = min(plans, key=lambda entry: entry[1])
        return plan if least < distance(bench, start) else start
    tried = sorted(tried, key=lambda entry: entry[0])[:REFINED]
    bar.total += 2 * SWEEPS * calls * len(tried)
    found = refine(
        lambda asked: [value(tried[k][1], levels) for k, levels in asked],
        [grid for *_, grid in tried],
        sweeps=SWEEPS,
    )
    best = min(range(len(found)), key=lambda k: found[k][1])
    (levels, error), student = found[best], tried[best][1]
    return student.plan(levels) if error < student.error(twice.run(plan=start).x) else start


def initial(first: float, last: float, scale: float, calls: int) -> list[Tensor]:
    r"""Returns grids of noise levels, each with shape (n + 2,): the first, those of n calls, and the last."""

    grids = []
    for high, low in itertools.product(HIGHEST, LOWEST):
        top, bottom = min(high * scale, first / NEAR), max(low * scale, last * NEAR)
        if bottom >= top or calls == 1:
            logs = torch.linspace(math.log(first), math.log(last), calls + 2, dtype=torch.float64)
            inner = logs.exp()[1:-1]
        else:
            width = WIDTH * scale
            places = math.asinh(top / width), math.asinh(bottom / width)
            inner = width * torch.linspace(*places, calls, dtype=torch.float64).sinh()
        grids.append(torch.cat([inner.new_tensor([first]), inner, inner.new_tensor([last])]))
    return grids
