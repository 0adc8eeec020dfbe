r"""Likelihoods on the exact digits: error, calls and memory, beside one solve as in score_sde.

The direct implementation is the classic one: state and log-density of the whole batch, flattened, in
one scipy solve (RK45, 1e-5), with one probe of random signs fixed throughout.
"""

import math
import resource
import subprocess
import sys
import time

import numpy as np
import torch

import scoresde as ss
from solvers.noise.brownian import keyed_uniform

from . import testbed
from .report import save

COUNT = 64
CASES = {
    "score_sde style: RK45 1e-5, one fixed probe": None,
    "scoresde: one probe per node": {"divergence": "hutchinson"},
    "scoresde: one probe per node, tolerance 1e-2": {"probes": 1, "rtol": 1e-2, "atol": 1e-2},
    "scoresde: a fixed probe": {"divergence": "fixed"},
    "scoresde: 4 probes per node": {"probes": 4},
    "scoresde: Hutch++, 6 probes per node": {"divergence": "hutch++"},
    "scoresde: until 0.01 bits/dim": {"target_stderr": 0.01 * 64 * math.log(2)},
    "scoresde: exact": {"divergence": "exact"},
    "scoresde: exact, tolerance 0.1": {"divergence": "exact", "rtol": 0.1, "atol": 0.1},
}


def classic(oracle: ss.KernelOracle, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    from scipy.integrate import solve_ivp

    process, flow = oracle.process, ss.probability_flow(oracle)
    start = process.start_of("likelihood")
    probe = torch.where(
        keyed_uniform(0, torch.arange(len(x)), 9, 0, x[0].numel()) < 0.5, -1.0, 1.0
    )
    alpha, calls = process.scales(torch.tensor(start, dtype=torch.float64))[0], 0

    def drift(t: float, y: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        state = torch.from_numpy(y[: x.numel()]).reshape(x.shape).requires_grad_()
        with torch.enable_grad():
            dx = flow.drift(torch.tensor(t, dtype=torch.float64), state)
            (product,) = torch.autograd.grad((dx * probe).sum(), state)
        divergence = (product * probe).sum(1)
        return torch.cat([dx.detach().flatten(), divergence]).numpy()

    y = np.concatenate([(alpha * x).flatten().numpy(), np.zeros(len(x))])
    y = solve_ivp(drift, (start, process.t_max), y, rtol=1e-5, atol=1e-5, method="RK45").y[:, -1]
    z = torch.from_numpy(y[: x.numel()]).reshape(x.shape)
    nats = (
        process.prior_log_prob(z) + torch.from_numpy(y[x.numel() :]) + x[0].numel() * alpha.log()
    )
    return nats, calls


def measure(name: str) -> dict:
    oracle = testbed.exact_digits(ss.VP())
    x = oracle.data(COUNT, seed=5)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    options, scale = CASES[name], x[0].numel() * math.log(2)
    if options is None:
        nats, calls = classic(oracle, x)
        row = {"path calls": 0.0, "products": float(calls), "stated error": None, "within": None}
    else:
        found = ss.log_likelihood(oracle, x, **options)
        nats = found.nats
        row = {"path calls": found.calls.double().mean().item(),
               "products": found.derivatives.double().mean().item()}  # fmt: skip
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    error = nats - oracle.log_density(x, oracle.process.start_of("likelihood"))
    if options is not None:
        row["stated error"] = found.total.mean().item() / scale
        row["within"] = (error.abs() <= found.total).double().mean().item()
    error = error / scale
    return {"method": name, **row, "calls": row["path calls"] + row["products"], "seconds": seconds,
            "peak MiB": peak, "rms error, bits/dim": error.square().mean().sqrt().item(),
            "mean error, bits/dim": error.mean().item()}  # fmt: skip


def main() -> None:
    torch.set_num_threads(2)
    if len(sys.argv) > 1:  # one case in a process of its own, so that peaks do not add up
        import json

        print(json.dumps(measure(sys.argv[1])))
        return
    import json

    command = [sys.executable, "-m", "benchmarks.likelihood"]
    out = [
        subprocess.run([*command, name], capture_output=True, check=True, text=True)
        for name in CASES
    ]
    save("likelihood", [json.loads(run.stdout.splitlines()[-1]) for run in out], samples=COUNT)


if __name__ == "__main__":
    main()
