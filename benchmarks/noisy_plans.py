r"""What noise brings to plans, by their distance to data.

The network trained on digits, and the best plans of the catalogue by :mod:`benchmarks.distance`, one without
noise and one with it, on their own grids. At 10 calls the noise is searched, first one amount for all steps and
then one for each, with 200 samples and one half of the data; at 20 calls some amounts are given. Figures are those
of two other seeds, with 400 samples each, and the other half of the data.

    python -m benchmarks.noisy_plans [10 20]
"""

import sys
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

import scoresde as ss
from scoresde.comparing.bench import Bench
from scoresde.files import Json
from scoresde.metrics import energy_distance
from scoresde.runs.grids import model_grid
from scoresde.tuning.noisy import noise_moved
from scoresde.tuning.objective import Measure, Objective
from scoresde.tuning.verb import _halves as halves

from .distance import T_MIN, real_digits, trained
from .report import load, save

PLANS = {
    10: (("moment_ipndm_4", "log_snr"), ("dpmpp_3m_sde", "log_snr")),
    20: (("dpmpp_2m", "rho"), ("er_sde", "tan")),
}
SEEDS, COUNT, CHOSEN_BY = (11, 12), 400, 200
SETTINGS = {"seeds": SEEDS, "seed_of_search": 0, "samples": CHOSEN_BY}
AMOUNTS = (0.0, 0.3, 0.7, 1.0)
Entry: TypeAlias = tuple[str, str]
Parts: TypeAlias = tuple[Tensor, Tensor]
STAGES = ("as it is", "one eta", "one eta per step")


def plan_of(model: ss.ScoreModel, calls: int, solver: str, grid: str) -> ss.Plan:
    times = model_grid(model, grid, model.process.t_max, T_MIN, calls - 1)
    levels = torch.exp(-model.process.log_snr(times)).tolist()
    options = {"solver": solver} | ({"noise": "path"} if solver.endswith("sde") else {})
    return ss.Plan(options, tuple(levels))


def bench(model: ss.ScoreModel, count: int, seed: int, data: Tensor) -> Bench:
    options = {"t_min": T_MIN, "dtype": torch.float32, "batch_size": 250}
    shape = (count, *data.shape[1:])
    return Bench(model, shape, seed, 1e-2, {"energy": energy_distance}, data, options)


def judged(model: ss.ScoreModel, data: Tensor, plan: ss.Plan | None) -> Json:
    r"""The mean of the distances over seeds, with its standard error; of the flow if there is no plan."""

    found = []
    for seed in SEEDS:
        b = bench(model, COUNT, seed, data)
        found.append(b.distances_of(b.reference().x if plan is None else b.run(plan=plan).x))
    values, errors = zip(*(entry["energy"] for entry in found), strict=True)
    stderr = sum(error**2 for error in errors) ** 0.5 / len(errors)
    mean = 1e3 * sum(values) / len(values)
    return {"energy distance x 1000": mean, "standard error": 1e3 * stderr}


def searched(model: ss.ScoreModel, calls: int, entry: Entry, parts: Parts) -> list[Json]:
    r"""The figures of a plan as it is, with the best amount for all steps, and with one for each."""

    chooses, judges = parts
    chosen_on = bench(model, CHOSEN_BY, 0, chooses)
    with tqdm(total=0) as bar:
        objective = Objective(Measure(chosen_on, "energy"), None, {}, bar.update)
        [stages] = noise_moved(objective, [plan_of(model, calls, *entry)], bar)
    return [
        {"calls": calls, "solver": entry[0], "noise": name, "eta": plan.options.get("eta"),
         **judged(model, judges, plan)}
        for name, plan in zip(STAGES, stages, strict=True)
    ]  # fmt: skip


def scanned(model: ss.ScoreModel, calls: int, entry: Entry, parts: Parts) -> list[Json]:
    r"""The figures of a plan with each of some amounts for all steps."""

    plan, rows = plan_of(model, calls, *entry), []
    for amount in AMOUNTS:
        options = {**plan.options, "noise": "path"} if amount else {"solver": entry[0]}
        noisy = replace(plan, options={**options, "eta": amount})
        rows.append({"calls": calls, "solver": entry[0], "noise": "given", "eta": amount,
                     **judged(model, parts[1], noisy)})  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(1)
    budgets = [int(word) for word in sys.argv[1:]] or list(PLANS)
    try:
        rows = [row for row in load("noisy_plans") if row["calls"] not in (None, *budgets)]
    except FileNotFoundError:
        rows = []
    model, parts = trained(), halves(real_digits())
    for calls in budgets:
        for entry in PLANS[calls]:
            measure = searched if calls == 10 else scanned
            rows += measure(model, calls, entry, parts)
            save("noisy_plans", rows, **SETTINGS)
    rows.append({"calls": None, "solver": "the flow itself", "noise": None, "eta": None,
                 **judged(model, parts[1], None)})  # fmt: skip
    save("noisy_plans", rows, **SETTINGS)


if __name__ == "__main__":
    main()
