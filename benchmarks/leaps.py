r"""How far adaptive solvers miss their tolerances, where the flow is known.

The flow of Gaussian data, from data to noise and back: the largest error of 12 samples, relative to what the
tolerances allow at the end, over deviations of 1, 0.2 and 0.02, and tolerances of 0.1 to 1e-4. And the exact digits at
1e-5: the calls of 64 samples and their error, held against `exponential` at 1e-9.

python -m benchmarks.leaps
"""

import itertools
from typing import Any

import torch
from torch import Tensor

import scoresde as ss
import solvers

from . import testbed
from .report import save

COUNT, DIGITS, TIGHT = 12, 64, 1e-5
MEANS, DEVIATIONS, TOLERANCES = (0.0, 3.0), (1.0, 0.2, 0.02), (1e-1, 1e-2, 1e-3, 1e-4)
PROCESSES = {**testbed.PROCESSES, "EDM to 1e5": ss.EDM(ss.Karras(0.002, 1e5))}
SOLVERS = [
    name
    for name in solvers.available()
    if solvers.get(name).adaptive and not solvers.get(name).stochastic and "scipy" not in name
]


def run(
    model: ss.ScoreModel, x: Tensor, up: bool, tolerance: float, solver: str
) -> solvers.Solution:
    options: dict[str, Any] = {"solver": solver, "rtol": tolerance, "atol": tolerance}
    if up:
        return ss.encode(model, x, **options)
    return ss.decode(model, x, denoise=False, **options)


def worst(found: Tensor, right: Tensor, tolerance: float) -> float:
    return ((found - right).abs() / (tolerance * (1 + right.abs()))).max().item()


def miss(
    process: ss.Process, mean: float, std: float, up: bool, tolerance: float, solver: str
) -> float:
    model = ss.GaussianOracle(torch.tensor([mean], dtype=torch.float64), std, process)
    x = model.data(COUNT) if up else process.prior_sample((COUNT, 1), dtype=torch.float64)
    made = run(model, x, up, tolerance, solver)
    start, stop = made.times[[0, -1]].tolist()
    x = x * process.scales(made.times[0])[0] if up else x
    return worst(made.x, model.flow(x, start, stop), tolerance)


def gaussians(solver: str, up: bool, mean: float) -> dict[str, Any]:
    r"""The largest errors of a solver by process."""

    tolerances = [t for t in TOLERANCES if t >= 1e-3 or solvers.get(solver).order > 2]
    row: dict[str, Any] = {"solver": solver, "way": "up" if up else "down", "mean": mean}
    for name, process in PROCESSES.items():
        cases = itertools.product(DEVIATIONS, tolerances)
        row[name] = max(miss(process, mean, std, up, tol, solver) for std, tol in cases)
    return row


def digits(solver: str, up: bool) -> dict[str, Any]:
    r"""The calls on exact digits at a tight tolerance, and the error."""

    model = testbed.exact_digits(ss.EDM())
    x = model.data(DIGITS) if up else testbed.start(DIGITS)
    made = run(model, x, up, TIGHT, solver)
    right = run(model, x, up, 1e-9, "exponential").x
    return {
        "calls at 1e-5": made.calls.double().mean().item(),
        "digits": worst(made.x, right, TIGHT),
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for solver in SOLVERS:
        for up in (False, True):
            calls = digits(solver, up)
            for mean in MEANS:
                rows.append({**gaussians(solver, up, mean), **calls})
        save("leaps", rows, samples=COUNT, deviations=DEVIATIONS, tolerances=TOLERANCES)


if __name__ == "__main__":
    main()
