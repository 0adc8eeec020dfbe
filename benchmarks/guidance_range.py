r"""One plan for a range of guidance scales, against a plan for each scale, and the plan for one scale.

The network trained on digits, guided towards all ten labels at the scales 1, 2 and 4. Figures are mean errors on
held-out noise, for each scale, and relative to the best of the catalogue there.

    python -m benchmarks.guidance_range [8 10]
"""

import sys

import torch

import scoresde as ss
from scoresde.files import Json

from .report import load, save

BUDGETS = (8, 10)
SCALES = (1.0, 2.0, 4.0)
SOLVERS = ("ddim", "dpmpp_2m", "ipndm_2")
SEARCH = {
    "solvers": SOLVERS,
    "grids": ("rho", "tan"),
    "samples": 20,
    "held_out": 80,
    "reference_tolerance": 1e-2,
    "progress": False,
}


def row(budget: int, plan: str, errors: list[float], units: list[float], seconds: float) -> Json:
    relative = [error / unit for error, unit in zip(errors, units, strict=True)]
    by_scale = {f"error at {w:g}": error for w, error in zip(SCALES, errors, strict=True)}
    mean = sum(relative) / len(relative)
    return {"calls": budget, "plan": plan, **by_scale, "relative": mean, "seconds": seconds}


def measure(budget: int) -> list[Json]:
    model, label = ss.load("digits"), torch.arange(20) % 10
    models = {f"{w:g}": ss.classifier_free(model, w, label=label) for w in SCALES}
    plan = ss.tune(models, budget, **SEARCH)
    known = plan.figures["by model"].values()
    units = [entry["best before"][0]["error"]["mean"] for entry in known]
    seconds = plan.figures["seconds of the search"]
    found = [
        row(budget, "best of the catalogue at each scale", units, units, 0.0),
        row(budget, f"for all: {plan}", [r["error"]["mean"] for r in known], units, seconds),
        row(budget, f"for 1 alone: {next(iter(known))['alone']['plan']}",
            [r["alone"]["error"]["mean"] for r in known], units, 0.0),
    ]  # fmt: skip
    errors, total = [], 0.0
    for scale, one in models.items():
        calls = budget // 2 if scale == "1" else budget  # of as many steps
        own = ss.tune(one, calls, **SEARCH)
        errors.append(own.figures["error"]["mean"])
        total += own.figures["seconds of the search"]
    return [*found, row(budget, "one for each scale", errors, units, total)]


def main() -> None:
    torch.set_num_threads(1)
    budgets = [int(word) for word in sys.argv[1:]] or list(BUDGETS)
    try:
        rows = [row for row in load("guidance_range") if row["calls"] not in budgets]
    except FileNotFoundError:
        rows = []
    for budget in budgets:
        rows += measure(budget)
        save("guidance_range", rows, scales=SCALES, **SEARCH)


if __name__ == "__main__":
    main()
