r"""Distance of samples from data against calls, for every solver, with seeds held out.

Three problems: the exact digits, a mixture of 20 Gaussians in 32 dimensions, and the network trained on
digits. For each solver and budget of calls the grid is chosen on one seed; what is reported is the
energy distance on other seeds. On the trained network this is done for a few solvers; the rest
take the grid that was chosen on the exact digits. Peers take their own grids, with the same network and calls.

    python -m benchmarks.distance [digits mixture trained] [--only SOLVER ...]
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.metrics import energy_distance, floor
from scoresde.training.digits_data import digits

from . import testbed
from .report import load, save

SOLVERS = [n for n in solvers.available() if solvers.get(n).fixed and "adams" not in n]
FEW = ("ddim", "edm_heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_3m_published", "unipc_3", "ipndm_3", "ipndm_4", "deis_3",
       "moment_1", "moment_2", "moment_ipndm_2", "moment_ipndm_3", "moment_ipndm_4", "moment_ipndm_3_analytic",
       "measured_2", "measured_ipndm_2", "measured_ipndm_3", "foresight_1", "foresight_2", "moment_foresight_1",
       "moment_foresight_2", "dpmpp_2m_sde")  # fmt: skip
GRIDS = ("rho", "log_snr", "tan", "asinh")
BUDGETS = (5, 6, 8, 10, 15, 20, 40)
SHORT = (5, 6, 8, 10, 20)
T_MIN = 0.01
CHOICE, HELD_OUT = 0, (1, 2)


def mixture() -> ss.MixtureOracle:
    draw = torch.Generator().manual_seed(0)
    model = ss.MixtureOracle(torch.randn(20, 32, generator=draw, dtype=torch.float64), 0.3)
    return testbed.measured(model, model.data(2000, seed=8))


def trained() -> ss.ScoreModel:
    model = ss.load("digits")
    data = digits("train").images
    model.moments = ss.moments(data)
    return testbed.measured(model, data)


def exact() -> ss.ScoreModel:
    model = testbed.exact_digits(ss.EDM())
    return testbed.measured(model, model.data(2000, seed=8))


def real_digits() -> Tensor:
    return torch.cat([digits(part).images for part in ("train", "test")])


PROBLEMS: dict[str, tuple[Callable[[], ss.ScoreModel], Callable[[ss.ScoreModel], Tensor], int]] = {
    "digits": (
        exact,
        lambda model: model.data(2000, seed=9),
        500,
    ),
    "mixture": (mixture, lambda model: model.data(3000, seed=9), 1000),
    "trained": (trained, lambda model: real_digits(), 500),
}


def samples(model: ss.ScoreModel, count: int, seed: int, **options: object) -> Tensor:
    return ss.sample(model, count, seed=seed, t_min=T_MIN, batch_size=500, **options).x


def largest(solver: solvers.Solver, budget: int) -> int:
    r"""The number of steps within a budget, of which one call is for the last denoising."""

    steps = 0
    while solver.calls(steps + 1) + 1 <= budget:
        steps += 1
    return steps


def candidates(problem: str, name: str, calls: int, known: list[dict]) -> tuple[str, ...]:
    r"""The grids to choose from."""

    if problem != "trained" or name in FEW:
        return GRIDS
    same = [r["grid"] for r in known if (r["problem"], r["solver"]) == ("digits", name)
            and (r["calls"] or 0) <= calls]  # fmt: skip
    return (same[-1],) if same else GRIDS


def measure(problem: str, known: list[dict], only: Sequence[str]) -> list[dict]:
    make, draw, count = PROBLEMS[problem]
    model = make()
    data = draw(model)
    if only:
        return solved(problem, only, model, data, count, known)
    rows = [{"problem": problem, "solver": "data against data", "calls": None, "grid": None,
             "energy distance x 1000": 1e3 * floor(data, count)[0], "by seed": None}]  # fmt: skip
    exact = [
        energy_distance(samples(model, count, s, rtol=1e-4, atol=1e-4), data) for s in HELD_OUT
    ]
    rows.append(entry(problem, "the flow itself", None, None, exact))
    rows += solved(problem, SOLVERS, model, data, count, known)
    return rows + peers(problem, model, data, count)


def solved(
    problem: str,
    names: Sequence[str],
    model: ss.ScoreModel,
    data: Tensor,
    count: int,
    known: list[dict],
) -> list[dict]:
    r"""The rows of our solvers."""

    rows: list[dict] = []
    for name in names:
        solver = solvers.get(name)
        clock = {} if solver.solves is solvers.SemiLinear else {"clock": "log_snr"}
        for budget in SHORT if problem == "trained" else BUDGETS:
            steps = largest(solver, budget)
            if not steps:
                continue
            options = {"solver": name, "steps": steps, **clock}
            few = candidates(problem, name, solver.calls(steps) + 1, known)
            grids = {
                grid: energy_distance(samples(model, count, CHOICE, grid=grid, **options), data)
                for grid in (few if len(few) > 1 else ())
            }
            grid = min(few, key=lambda grid: grids.get(grid, 0.0))
            found = [
                energy_distance(samples(model, count, seed, grid=grid, **options), data)
                for seed in HELD_OUT
            ]
            rows.append(entry(problem, name, solver.calls(steps) + 1, grid, found))
        print(rows[-1], flush=True)
    return rows


def entry(
    problem: str, name: str, calls: int | None, grid: str | None, found: list[float]
) -> dict:
    mean = 1e3 * sum(found) / len(found)
    return {"problem": problem, "solver": name, "calls": calls, "grid": grid,
            "energy distance x 1000": mean, "by seed": [round(1e3 * d, 2) for d in found]}  # fmt: skip


def peers(problem: str, model: ss.ScoreModel, data: Tensor, count: int) -> list[dict]:
    r"""Diffusers' EDM schedulers and torchdiffeq's methods, used directly."""

    rows = []
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        for budget in SHORT:
            found = []
            for seed in HELD_OUT:
                z = model.process.prior_sample(
                    (count, *data.shape[1:]), seed=seed, dtype=data.dtype
                )
                found.append(
                    energy_distance(testbed.diffusers_edm(name, model, z, budget, T_MIN), data)
                )
            rows.append(entry(problem, f"diffusers directly: {name}", budget, "rho", found))
    for method, cost in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
        for budget in SHORT:
            steps = (budget - 1) // cost
            if not steps:
                continue
            found = []
            for seed in HELD_OUT:
                z = model.process.prior_sample(
                    (count, *data.shape[1:]), seed=seed, dtype=data.dtype
                )
                found.append(energy_distance(testbed.odeint(method, model, z, steps, T_MIN), data))
            rows.append(entry(problem, f"torchdiffeq directly: {method}, Karras grid", 1 + steps * cost, "rho", found))  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--only", nargs="*", default=[])
    asked = parser.parse_args()
    try:
        rows = load("distance")
    except FileNotFoundError:
        rows = []
    with torch.no_grad():
        for name in asked.problems:
            made = measure(name, rows, asked.only)
            there = asked.only or {row["solver"] for row in rows}
            kept = [r for r in rows if r["problem"] != name or r["solver"] not in there]
            rows = kept + made
            save("distance", rows, seeds=HELD_OUT, seed_of_grid=CHOICE)


if __name__ == "__main__":
    main()
