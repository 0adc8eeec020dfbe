r"""Every solver on every process against closed forms: the full product of which tests hold a part.

Samples of Gaussian data must have its moments; for flows, each sample must be where the exact flow
carries it.
"""

import time

import torch

import scoresde as ss
import solvers

from . import testbed
from .report import save

COUNT, STEPS = 4000, 100
BETA = (lambda t: -(0.1 + 19.9 * t) / 2, lambda t: (0.1 + 19.9 * t).sqrt())
PROCESSES = {
    **testbed.PROCESSES,
    "linear": ss.LinearProcess(*BETA),
    "custom": ss.CustomProcess(lambda t: 1 - t**2, lambda t: t, t_max=0.99),
}


def measure(name: str, process: ss.Process) -> dict[str, float]:
    covariance = torch.tensor([[0.30, 0.10], [0.10, 0.20]], dtype=torch.float64)
    oracle = ss.GaussianOracle(torch.tensor([0.5, -0.3], dtype=torch.float64), covariance, process)
    oracle = testbed.measured(oracle, oracle.data(64, seed=0))
    solver = solvers.get(name)
    count = 16 if name == "torchdiffeq/scipy_solver" else COUNT
    tolerance = 3e-3 if solver.stochastic else 1e-5
    tolerances = {"rtol": tolerance, "atol": tolerance}
    options = {"steps": STEPS, "grid": "log_snr"} if solver.fixed else tolerances
    if solver.solves is not solvers.SemiLinear:
        options["clock"] = "log_snr"
    stop = process.start_of("sampling")
    z = process.prior_sample((count, 2), seed=1, dtype=torch.float64)
    x = ss.decode(oracle, z, solver=name, denoise=False, t_min=stop, seed=1, **options).x
    if not solver.stochastic:
        return {"flow error": (x - oracle.flow(z, process.t_max, stop)).abs().max().item()}
    alpha, sigma = process.scales(torch.tensor(stop, dtype=torch.float64))
    want = alpha**2 * covariance + sigma**2 * torch.eye(2)
    return {"covariance error": ((x.T.cov() - want) / want.diagonal().max()).abs().max().item()}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in solvers.available():
        row: dict = {"solver": name, "measure": ""}
        start = time.perf_counter()
        for label, process in PROCESSES.items():
            ((row["measure"], row[label]),) = measure(name, process).items()
        rows.append(row)
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    save("closed_forms", rows, samples=COUNT, steps=STEPS)


if __name__ == "__main__":
    main()
