r"""The pictures of the page of benchmarks, from what was measured.

python -m benchmarks.figures
"""

import solvers
from scoresde import plots

from . import report, tables
from .report import Row
from .tables import DISTANCE, DOCS

PICTURES = DOCS / "pictures"
NOISE = 0.3  # energy distances x 1000 below it are noise of the samples
CURVES = ("ddim", "dpmpp_2m", "dpmpp_3m", "unipc_3", "ipndm_4", "deis_3", "moment_2", "moment_ipndm_4", "foresight_2",
          "moment_ipndm_3_analytic", "dpmpp_2m_sde", "diffusers directly: EDMDPMSolverMultistepScheduler")  # fmt: skip
BUDGET = ("probes", "quadrature", "path", "end", "prior")


def accuracy() -> None:
    r"""Draws errors against calls, of the solvers that the page's table shows."""

    lines: dict[str, list[tuple[float, float]]] = {}
    page = (DOCS / "benchmarks.md").read_text()
    (shown,) = (of for kind, of in tables.marks(page) if (kind, of[:8]) == ("table", "accuracy"))
    for row in tables.chosen(shown):
        lines.setdefault(row["solver"] + way(row), []).append((row["calls"], row["rms"]))
    plots.curves(PICTURES / "accuracy.png", lines, "network calls per sample", "RMS error")


def way(row: Row) -> str:
    r"""What a solver was given that takes both steps and tolerances."""

    if row["solver"] not in solvers.available():
        return ""
    solver = solvers.get(row["solver"])
    if not (solver.adaptive and solver.fixed):
        return ""
    return ", steps" if "steps" in row["setting"] else ", tolerances"


def distances(problem: str) -> None:
    r"""Draws distances against calls, none below the noise of the samples."""

    lines = tables.by_solver([row for row in report.load("distance") if row["problem"] == problem])
    curves = {
        name: sorted((calls, max(d, NOISE)) for calls, d in lines[name].items())
        for name in CURVES
        if name in lines
    }
    file = PICTURES / f"distance_{problem}.png"
    plots.curves(file, curves, "network calls per sample", DISTANCE)


def budget() -> None:
    r"""Draws the parts of a likelihood's error."""

    first = report.load("digits_likelihood")[0]
    plots.bars(PICTURES / "budget.png", {part: first[part] for part in BUDGET}, "bits/dim")


def main() -> None:
    accuracy()
    for problem in ("digits", "mixture", "trained"):
        distances(problem)
    budget()


if __name__ == "__main__":
    main()
