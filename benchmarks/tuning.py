r"""What a searched plan gains over the best of the catalogue, on seeds that chose nothing.

Two problems: the network trained on digits, and a mixture of 20 Gaussians in 32 dimensions. The catalogue
enters with its best by error on the seed of the search, and its best by energy distance in
`benchmarks.distance`; of these the one that does best on the held-out seeds themselves is reported, which
favours the catalogue.

    python -m benchmarks.tuning [trained mixture]
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

import scoresde as ss
import solvers
from scoresde.comparing.bench import Bench
from scoresde.comparing.cells import options_of, steps_within
from scoresde.comparing.reference import rms
from scoresde.metrics import energy_distance

from .distance import PROBLEMS, T_MIN
from .report import load, save

BUDGETS = (5, 6, 8, 10)
SEEDS = (11, 12)
BY_DISTANCE = 3
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
    r"""The mean error and energy distance of a plan over held-out seeds."""

    errors, distances = [], []
    for bench in benches:
        x = bench.run(plan=plan).x
        errors.append(rms(x, bench.reference().x).mean().item())
        distances.append(1e3 * energy_distance(x, bench.data))
    return {
        "error": sum(errors) / len(errors),
        "energy distance x 1000": sum(distances) / len(distances),
    }


def measure(problem: str, folder: Path) -> Iterator[list[dict]]:
    make, draw, count = PROBLEMS[problem]
    model = make()
    data = draw(model)
    options = {"t_min": T_MIN, "batch_size": 500, "dtype": DTYPE[problem]}
    benches = [Bench(model, (count, *data.shape[1:]), s, 1e-4, {}, data, options) for s in SEEDS]
    flow = [1e3 * energy_distance(b.reference().x, data) for b in benches]
    rows = [{"problem": problem, "calls": None, "plan": "the flow itself", "error": 0.0,
             "energy distance x 1000": sum(flow) / len(flow), "seconds": None}]  # fmt: skip
    for budget in BUDGETS:
        search = {
            **options,
            "data": data,
            "progress": False,
            "held_out": 64,
            "file": folder / f"{problem}_{budget}.json",
        }
        plan = ss.tune(model, budget, **search)
        learned = ss.tune(model, budget, learned=True, **search)  # which finds the search done
        seconds = plan.figures["seconds of the search"]
        both = seconds + learned.figures["seconds of the search"]
        others = [ss.Plan(entry["options"]) for entry in plan.figures["best before"]]
        found = [
            (str(other), judge(benches, other))
            for other in [*others, *by_distance(problem, budget)]
        ]
        for metric in ("error", "energy distance x 1000"):
            name, best = min(found, key=lambda entry: entry[1][metric])
            rows.append({"problem": problem, "calls": budget, "plan": f"catalogue, best by {metric.split(' x')[0]}: {name}",
                         **best, "seconds": None})  # fmt: skip
        for name, made, took in (
            ("searched", plan, seconds),
            ("searched and learned", learned, both),
        ):
            rows.append({"problem": problem, "calls": budget, "plan": f"{name}: {made.options['solver']}",
                         **judge(benches, replace(made, model="")), "seconds": took,
                         "noise levels": [round(level, 4) for level in made.noise_levels]})  # fmt: skip
        yield [{"noise levels": None, **row} for row in rows]
        rows = []


def main() -> None:
    torch.set_num_threads(2)
    names = sys.argv[1:] or ["trained", "mixture"]
    try:
        rows = [row for row in load("tuning") if row["problem"] not in names]
    except FileNotFoundError:
        rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for found in measure(name, Path(folder)):
                rows += found
                save("tuning", rows, seeds=SEEDS, seed_of_search=0)


if __name__ == "__main__":
    main()
