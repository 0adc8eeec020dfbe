r"""What `ss.suggest` knows: the best of the catalogue by problem and budget, from `benchmarks.distance`.

python -m benchmarks.suggestions
"""

import json

import solvers
from scoresde.comparing.cells import steps_within
from scoresde.comparing.suggestion import MEASURED
from solvers.catalogue import INVERTIBLE

from . import report
from .report import Row
from .tables import BUDGETS, DISTANCE

PROBLEMS = {
    "digits": "the exact digits: real data under a kernel of width 0.1, 500 samples",
    "mixture": "a mixture of 20 Gaussians in 32 dimensions, 1000 samples",
    "trained": "the network trained on digits, 500 samples against all real digits",
}


def content() -> Row:
    r"""Returns what was measured, as the package holds it."""

    found, problems = report.load("distance"), []
    for problem, words in PROBLEMS.items():
        rows = [row for row in found if row["problem"] == problem]
        (exact,) = (row[DISTANCE] for row in rows if row["solver"] == "the flow itself")
        problems.append({"words": words, "exact": round(exact, 2), "rows": best(rows)})
    return {"command": report.runs()["distance"]["command"], "problems": problems}


def best(rows: list[Row]) -> list[Row]:
    r"""Returns the best at each budget, of solvers that know moments of the data and of others."""

    known, found = set(solvers.available()), []
    known -= {
        n for n in known if solvers.get(n).form == "measured"
    }  # which need more than moments
    known -= {str(solver) for solver in INVERTIBLE}  # which are for round trips
    mine = [row for row in rows if row["calls"] and row["solver"] in known]
    for budget in BUDGETS:
        for moments in (False, True):
            fit = [row for row in mine if 0.7 * budget <= row["calls"] <= budget
                   and (solvers.get(row["solver"]).form == "moments") == moments]  # fmt: skip
            if fit:
                found.append(entry(min(fit, key=lambda row: row[DISTANCE]), budget, moments))
    return found


def entry(row: Row, budget: int, moments: bool) -> Row:
    solver = solvers.get(row["solver"])
    return {
        "budget": budget,
        "moments": moments,
        "solver": row["solver"],
        "grid": row["grid"],
        "steps": steps_within(solver, row["calls"]),
        "clock": None if solver.solves is solvers.SemiLinear else "log_snr",
        "calls": row["calls"],
        "value": round(row[DISTANCE], 2),
    }


def main() -> None:
    MEASURED.write_text(json.dumps(content(), indent=1) + "\n")


if __name__ == "__main__":
    main()
