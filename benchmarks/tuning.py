r"""What a searched plan gains over the best of the catalogue, on seeds that chose nothing.

Two problems: the network trained on digits, and a mixture of 20 Gaussians in 32 dimensions. The catalogue
enters with its best by error on the seed of the search, and its best by energy distance in
`benchmarks.distance`; of these the one that does best on the held-out seeds themselves is reported, which
favours the catalogue. Plans for a distance are chosen by one half of the data, so the distance to the other half
is reported, too.

    python -m benchmarks.tuning [trained mixture] [searched error energy]

The last words say which plans are searched: with the weights of the catalogue, or learned ones for either metric.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.comparing.bench import Bench
from scoresde.comparing.cells import options_of, steps_within
from scoresde.comparing.reference import rms
from scoresde.metrics import energy_distance, with_error
from scoresde.tuning.verb import halves

from .distance import PROBLEMS, T_MIN
from .report import load, save

BUDGETS = (5, 6, 8, 10)
SEEDS = (11, 12)
BY_DISTANCE = 3
WORDS = {
    "searched": "searched",
    "error": "learned for the error",
    "energy": "learned for the energy distance",
}
DTYPE = {"trained": torch.float32, "mixture": torch.float64}


def by_distance(problem: str, budget: int) -> list[ss.Plan]:
    r"""The catalogue's best by energy distance."""

    rows = [r for r in load("distance")
            if (r["problem"], r["calls"]) == (problem, budget) and "directly" not in r["solver"]]  # fmt: skip
    rows.sort(key=lambda row: row["energy distance x 1000"])
    plans = []
    for row in rows[:BY_DISTANCE]:
        solver = solvers.get(row["solver"])
        steps = steps_within(solver, budget)
        options = {**options_of(ss.load("digits"), solver), "grid": row["grid"], "steps": steps}
        plans.append(ss.Plan(options))
    return plans


def judge(benches: list[Bench], plan: ss.Plan) -> dict:
    r"""The mean error and energy distance of a plan over held-out seeds, with standard errors."""

    return judged(benches, [bench.run(plan=plan).x for bench in benches])


def judged(benches: list[Bench], samples: list[Tensor]) -> dict:
    r"""The same of samples."""

    data, count = benches[0].data, len(benches)
    pairs = list(zip(benches, samples, strict=True))
    errors = torch.cat([rms(x, bench.reference().x) for bench, x in pairs])
    found = torch.tensor([with_error(energy_distance, x, data) for x in samples])
    other = [energy_distance(x, halves(data)[1]) for x in samples]
    return {
        "error": errors.mean().item(),
        "its standard error": (errors.std() / len(errors) ** 0.5).item(),
        "energy distance x 1000": 1e3 * found[:, 0].mean().item(),
        "the standard error of it": 1e3 * found[:, 1].norm().item() / count,
        "to the other half of the data": 1e3 * sum(other) / count,
    }


def measure(problem: str, kinds: list[str], folder: Path) -> Iterator[list[dict]]:
    make, draw, count = PROBLEMS[problem]
    model = make()
    data = draw(model)
    options = {"t_min": T_MIN, "batch_size": 500, "dtype": DTYPE[problem]}
    benches = [Bench(model, (count, *data.shape[1:]), s, 1e-4, {}, data, options) for s in SEEDS]
    empty = {"problem": problem, "calls": None, "seconds": None, "noise levels": None}
    flow = judged(benches, [bench.reference().x for bench in benches])
    yield [{**empty, "kind": "flow", "plan": "the flow itself", **flow}]
    for budget in BUDGETS:
        file = folder / f"{problem}_{budget}.json"
        made = {
            kind: search(model, budget, kind, {**options, "data": data, "file": file})
            for kind in kinds
        }
        before = next(iter(made.values())).figures["best before"]
        others = [
            *map(ss.Plan, (entry["options"] for entry in before)),
            *by_distance(problem, budget),
        ]
        found = [
            (str(other), judge(benches, other)) for other in others if other.noise_levels is None
        ]
        rows = []
        for metric in ("error", "energy distance x 1000"):
            name, best = min(found, key=lambda entry: entry[1][metric])
            words = f"catalogue, best by {metric.split(' x')[0]}: {name}"
            rows.append({**empty, "calls": budget, "kind": "catalogue", "plan": words, **best})
        for kind, plan in made.items():
            levels = [round(level, 4) for level in plan.noise_levels]
            rows.append({**empty, "calls": budget, "kind": kind, "plan": f"{WORDS[kind]}: {plan.options['solver']}",
                         **judge(benches, replace(plan, model="")), "noise levels": levels,
                         "seconds": plan.figures["seconds of the search"]})  # fmt: skip
        yield rows


def search(model: ss.ScoreModel, budget: int, kind: str, options: dict) -> ss.Plan:
    r"""The plan of a kind."""

    options = {**options, "progress": False, "held_out": 64}
    if kind == "searched":
        return ss.tune(model, budget, **options)
    file = options["file"].with_stem(f"{options['file'].stem}_{kind}")
    return ss.tune(model, budget, metric=kind, learned=True, **{**options, "file": file})


def main() -> None:
    torch.set_num_threads(2)
    names = [word for word in sys.argv[1:] if word in PROBLEMS] or ["trained", "mixture"]
    kinds = [word for word in sys.argv[1:] if word in WORDS] or list(WORDS)
    new = {*kinds, "flow", "catalogue"}
    try:
        rows = [
            row for row in load("tuning") if row["problem"] not in names or row["kind"] not in new
        ]
    except FileNotFoundError:
        rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for found in measure(name, kinds, Path(folder)):
                rows += found
                rows.sort(key=lambda row: (row["problem"], row["calls"] or 0))
                save("tuning", rows, seeds=SEEDS, seed_of_search=0)


if __name__ == "__main__":
    main()
