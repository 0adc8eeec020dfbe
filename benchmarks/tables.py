r"""Pages of the docs that come from data: the catalogue, and what the other scripts measured."""

import json
from pathlib import Path
from typing import Any

import solvers
from scoresde import plots
from scoresde.comparing.cells import steps_within
from scoresde.comparing.suggestion import MEASURED
from solvers.catalogue import ALIASES, REFUSED, describe

from . import report

DOCS = Path(__file__).parent.parent / "docs"
SHOWN = (
    "exponential", "dpm_adaptive", "dopri5", "ddim", "dpmpp_2m", "dpmpp_3m", "unipc_3", "ipndm_4", "dpm_3", "edm_heun",
    "moment_ipndm_4", "torchdiffeq/dopri5", "torchdiffeq directly: dopri5, VP, clock t",
    "diffusers directly: EDMDPMSolverMultistepScheduler",
)  # fmt: skip
DISTANCES = {
    "digits": "the exact digits: real data under a kernel of width 0.1, 500 samples",
    "mixture": "a mixture of 20 Gaussians in 32 dimensions, 1000 samples",
    "trained": "the network trained on digits, 500 samples against all real digits",
}
NOISE = 0.3  # energy distances x 1000 below it are noise of the samples
CURVES = ("ddim", "dpmpp_2m", "dpmpp_3m", "unipc_3", "ipndm_4", "deis_3", "moment_1", "moment_2", "moment_ipndm_4", "dpmpp_2m_sde",
          "diffusers directly: EDMDPMSolverMultistepScheduler")  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(report.text(row[name]) for name in head) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _order(row: dict[str, Any]) -> str:
    order, cold = row["order"], row["order on an even grid"]
    return f"{order:g}" if cold == order else f"{order:g} ({cold:g})"


def catalogue() -> str:
    rows = []
    for name in solvers.available():
        row = describe(solvers.get(name))
        way = {
            (True, True): "steps or tolerances",
            (False, True): "steps",
            (True, False): "tolerances",
        }
        rows.append({
            "solver": f"`{name}`", "solves": row["solves"], "order": _order(row),
            "noise": "yes" if row["stochastic"] else "", "takes": way[row["adaptive"], row["fixed"]],
            "calls per step": row["calls per step"], "note": row["note"],
        })  # fmt: skip
    rows += [{"solver": f"`{name}`", "solves": "", "order": "", "noise": "", "takes": "refused",
              "calls per step": "", "note": reason} for name, reason in REFUSED.items()]  # fmt: skip
    return (
        "# Every solver\n\n"
        "All methods of torchdiffeq and torchsde are here, by name. `python -m benchmarks.tables` writes this page "
        "from the catalogue.\n\nOrders of stochastic solvers are strong orders for additive noise. In brackets is the order on an even grid, from which the first steps of multistep "
        "methods, which have fewer values, or the last of `dpm_fast`, keep the whole: grids with short steps at both ends "
        "have the full one. Native adaptive "
        "solvers control each sample by itself; those of torchdiffeq share steps that meet the tolerance for the "
        "worst sample. Clocks in log-SNR fall from data to noise.\n\n"
        + table(rows)
        + "\nOther names: "
        + ", ".join(f"`{alias}` is `{name}`" for alias, name in ALIASES.items())
        + ".\n"
    )


def section(name: str, title: str, words: str, keep: Any = None) -> str:
    if not (report.RESULTS / f"{name}.json").exists():
        return ""
    found = report.load(name)
    rows = [row for row in found["rows"] if keep is None or keep(row)]
    threads = found["machine"]["threads"]
    machine = f"torch {found['machine']['torch']}, {threads} thread{'s' * (threads != 1)}"
    return f"## {title}\n\n{words}\n\n`{found['command']}` ({machine}):\n\n{table(rows)}\n"


def distances() -> str:
    r"""Energy distances by solver and budget, a table and a figure for each problem."""

    if not (report.RESULTS / "distance.json").exists():
        return ""
    found = report.load("distance")
    page = (
        "## Distance from data\n\nEnergy distance times 1000, the mean over two seeds that did not choose the grid: for each solver and "
        "budget, the best of `rho`, `log_snr`, `tan` and `asinh` on another seed. Calls include the last denoising; a solver of several calls per step "
        "stands at the largest number within the budget. Figures draw values below 0.3, which are noise of the samples, at 0.3.\n\n`python -m benchmarks.distance`\n\n"
    )
    for problem, words in DISTANCES.items():
        rows = [row for row in found["rows"] if row["problem"] == problem]
        if not rows:
            continue
        floors = {
            row["solver"]: row["energy distance x 1000"] for row in rows if row["calls"] is None
        }
        budgets = sorted(
            {row["calls"] for row in rows if row["calls"]} & {5, 6, 8, 10, 15, 20, 40}
        )
        lines: dict[str, dict[int, float]] = {}
        for row in rows:
            if row["calls"]:
                lines.setdefault(row["solver"], {})[row["calls"]] = row["energy distance x 1000"]
        curves = {
            name: sorted((calls, max(d, NOISE)) for calls, d in lines[name].items())
            for name in CURVES
            if name in lines
        }
        figure = f"distance_{problem}.png"
        plots.curves(
            DOCS / "pictures" / figure,
            curves,
            "network calls per sample",
            "energy distance x 1000",
        )
        beside = ", ".join(f"{name} {value:.2f}" for name, value in floors.items())
        page += f"### {words[0].upper()}{words[1:]}\n\nBeside: {beside}.\n\n![{words}](pictures/{figure})\n\n"
        page += table([
            {"solver": name, **{str(b): nearest(calls, b) for b in budgets}} for name, calls in lines.items()
        ]) + "\n"  # fmt: skip
    return page


def measured() -> dict[str, Any]:
    r"""What `ss.suggest` knows: the best of the catalogue by problem and budget."""

    found, problems = report.load("distance"), []
    for problem, words in DISTANCES.items():
        rows = [row for row in found["rows"] if row["problem"] == problem]
        exact = next(r for r in rows if r["solver"] == "the flow itself")["energy distance x 1000"]
        mine = [row for row in rows if row["calls"] and row["solver"] in solvers.available()]
        best = []
        for budget in (5, 6, 8, 10, 15, 20, 40):
            for moments in (False, True):
                fit = [r for r in mine if 0.7 * budget <= r["calls"] <= budget
                       and (solvers.get(r["solver"]).form == "moments") == moments]  # fmt: skip
                if fit:
                    row = min(fit, key=lambda row: row["energy distance x 1000"])
                    best.append(suggestion(row, budget, moments))
        problems.append({"words": words, "exact": round(exact, 2), "rows": best})
    return {"command": found["command"], "problems": problems}


def suggestion(row: dict[str, Any], budget: int, moments: bool) -> dict[str, Any]:
    solver = solvers.get(row["solver"])
    return {
        "budget": budget,
        "moments": moments,
        "solver": row["solver"],
        "grid": row["grid"],
        "steps": steps_within(solver, row["calls"]),
        "clock": None if solver.solves is solvers.SemiLinear else "log_snr",
        "calls": row["calls"],
        "value": round(row["energy distance x 1000"], 2),
    }


def digits_likelihood() -> str:
    r"""The held-out digits, three tables and a figure of the budget."""

    if not (report.RESULTS / "digits_likelihood.json").exists():
        return ""
    found = report.load("digits_likelihood")
    rows = found["rows"]
    scored = [row for row in rows if "bits/dim" in row]
    parts = list(rows[0])[4:]
    plots.bars(
        DOCS / "pictures" / "budget.png", {part: rows[0][part] for part in parts}, "bits/dim"
    )
    names = list(rows[0])
    page = table([{name: row.get(name) for name in names} for row in scored])
    page += "\n" + table([row for row in rows if "accuracy" in row])
    words = (
        "The embedded network on 360 held-out digits, uniformly dequantised unless said otherwise, beside density models of scikit-learn; what is no digit, 60 images each; and the "
        "classes that Bayes' rule finds.\n\n![The budget](pictures/budget.png)"
    )
    return f"## Likelihood of digits\n\n{words}\n\n`{found['command']}`:\n\n{page}\n"


def inversion() -> str:
    r"""Round trips, for each problem and by the number of steps."""

    if not (report.RESULTS / "inversion.json").exists():
        return ""
    found = report.load("inversion")
    page = (
        "## There and back\n\nEncoding and decoding on one grid, EDM's process, sigma 0.002 to 80: as many steps as fit into 100 calls on the way there. The "
        "round trip is the largest error of 32 samples, of data on a range of about 2; the distance to the exact latent is the mean RMS, over 80. Float32 is that of state and model.\n\n"
        f"`{found['command']}`\n\n"
    )
    for name in dict.fromkeys((row["table"], row["problem"]) for row in found["rows"]):
        rows = [row for row in found["rows"] if (row["table"], row["problem"]) == name]
        hidden = ("table", "problem")
        page += f"### {name[1][0].upper()}{name[1][1:]}{', by steps' if name[0] == 'steps' else ''}\n\n"
        page += table([{k: v for k, v in row.items() if k not in hidden} for row in rows]) + "\n"
    return page


def geometry() -> str:
    r"""What the pictures of geometry show, in numbers."""

    if not (report.RESULTS / "geometry.json").exists():
        return ""
    found = report.load("geometry")
    page = (
        "## Geometry of guidance\n\nThe embedded digits at a scale of 3, 32 threes by 24 ancestral steps; and the variance of data given its noisy state by the derivatives of the network, "
        "averaged over the entries, of 8 digits with noise, beside that of the data.\n\n"
        f"`{found['command']}`\n\n"
    )
    for name in dict.fromkeys(row["table"] for row in found["rows"]):
        rows = [
            {k: v for k, v in row.items() if k != "table"}
            for row in found["rows"]
            if row["table"] == name
        ]
        page += f"### {name[0].upper()}{name[1:]}\n\n{table(rows)}\n"
    return page


def nearest(calls: dict[int, float], budget: int) -> float | None:
    r"""The figure at the largest number of calls within a budget, unless that is far below it."""

    within = [c for c in calls if 0.7 * budget <= c <= budget]
    return calls[max(within)] if within else None


def benchmarks() -> str:
    page = (
        "# Benchmarks\n\nEach table is written by the command above it; `make bench` runs all. Times depend on "
        "the machine, so compare ratios within a table. The rows in full are in `benchmarks/results`.\n\n"
    )
    accuracy = report.RESULTS / "accuracy.json"
    if accuracy.exists():
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in report.load("accuracy")["rows"]:
            if row["solver"] in SHOWN:
                both = solvers.get(row["solver"]) if row["solver"] in solvers.available() else None
                way = ""
                if both is not None and both.adaptive and both.fixed:
                    way = ", steps" if "steps" in row["setting"] else ", tolerances"
                lines.setdefault(row["solver"] + way, []).append((row["calls"], row["rms"]))
        plots.curves(
            DOCS / "pictures" / "accuracy.png", lines, "network calls per sample", "RMS error"
        )
    page += section(
        "accuracy", "Error against calls",
        "The exact digits: real data under a kernel, with a known answer. The probability flow from sigma 80 to 0.002, "
        "64 samples in float64, against a reference at 1e-10.\n\n![Error against calls](pictures/accuracy.png)",
        lambda row: row["solver"] in SHOWN,
    )  # fmt: skip
    page += distances()
    page += section(
        "grids", "Grids",
        "5,000 samples of a flow, of the same flow up to 1 - 2^-30 and of DDPM's table, by exact digits, small networks trained on each process, and the embedded network. "
        "\"Above the best\" is the energy distance to data less that of the best named grid, with the error of paired samples. "
        "The two constants of `logistic` were chosen among a dozen by exact models and small networks such as these, on the same seed, with `dpmpp_2m`; "
        "the embedded network and `ddim` had no part in that. With `ddim`, `tan` and `t` are better; at 20 steps of the networks trained here, `rho` or `t` is.",
        lambda row: row["grid"] != "asinh",
    )  # fmt: skip
    page += section(
        "tuning", "Searched plans",
        "Two seeds of 500 samples (1000 of the mixture) that chose nothing. The catalogue enters with its five best by error on the seed of the search and its three best by "
        "energy distance; the one that does best on the held-out seeds is shown. The error is the mean over samples, to the exact flow.",
    )  # fmt: skip
    page += section(
        "likelihood", "Likelihood",
        "64 points of the same data; the error is that of each point against the exact density. Every Jacobian product is one more call. The "
        "stated error is the mean of `l.total`, and within it lies the true one of this share of points.",
    )  # fmt: skip
    page += section(
        "coverage", "Coverage of stated errors",
        "The share of points whose true error lies within `l.total`.",
    )  # fmt: skip
    page += section(
        "likelihood_errors", "What stated errors rest on",
        "The noise of probes against the spread of 60 repeats with other seeds, on 30 points; and what a coarse path of the trained network leaves of the defect "
        "that was taken out, on 6 held-out digits with exact divergences. A quarter of it is stated.",
    )  # fmt: skip
    page += section(
        "likelihood_memory", "Memory of likelihoods",
        "The memory above the process, beside that of one vector-Jacobian product at equal batch: 16 images of a U-Net, 64 digits of the embedded network.",
    )  # fmt: skip
    page += digits_likelihood()
    page += inversion()
    page += section(
        "editing", "Edits of digits",
        "200 held-out digits become the digit five further on, 12 steps each way. A classifier says what they show; the distance is that to the source per pixel, of "
        "a range of 2; \"held\" is that of an edit towards the label that the digit has already. At a scale of 3, guidance is that of the target, and of both where two flows are compared.",
    )  # fmt: skip
    page += section(
        "guidance", "Guidance by scale",
        "200 digits of the embedded network, ten labels, 12 steps of `dpmpp_2m` unless said otherwise. A support vector machine says what they show. Coverage is the share of held-out digits "
        "with a sample nearer than their 5th neighbour among the held-out ones, entropy that over 40 clusters of the training digits: both fall where samples are alike. The energy distance is to the held-out digits, "
        "and uncertain by what real digits have among themselves, in the first rows. Calls are those of the network, not of the classifier.\n\n![Samples](pictures/guidance.png)",
    )  # fmt: skip
    page += geometry()
    page += section(
        "gradients", "Memory of gradients",
        "The peak of a process that decodes 64 digits in 10 steps by the embedded network, and how much more that is than without gradients.",
    )  # fmt: skip
    page += section(
        "overhead", "Cost of a step",
        "States of shape (16, 3, 32, 32) in float32 and a network that returns its input; the noise alone; and 20 steps of the "
        "embedded network, where the hand's loop is its calls alone. The ratio is to the loop written by hand.",
    )  # fmt: skip
    page += section(
        "leaps", "Largest errors under tolerances",
        "The largest error of 12 samples, relative to `atol + rtol |x|` at the end, on the flow of Gaussian data of deviations 1, 0.2 and 0.02 and of some mean, from noise to data "
        "(down) and back (up), at tolerances of 0.1 to 1e-4 (to 1e-3 for order 2); and on 64 exact digits, with the calls.",
    )  # fmt: skip
    page += section(
        "closed_forms", "All pairs",
        "Every solver on every process, 100 steps even in log-SNR or tolerances of 1e-5 (3e-3 with noise), on Gaussian data: for flows "
        "the largest distance of a sample from where the exact flow carries it; for stochastic solvers the largest error of the covariance, "
        "relative to the largest variance.",
    )  # fmt: skip
    return page


def main() -> None:
    (DOCS / "solvers.md").write_text(catalogue())
    (DOCS / "benchmarks.md").write_text(benchmarks())
    MEASURED.write_text(json.dumps(measured(), indent=1) + "\n")


if __name__ == "__main__":
    main()
