r"""What gradients cost in memory, by way: the peak of a process beside that of one without gradients.

Sixty-four digits, decoded in 10 steps by the embedded network, with gradients with respect to the start. Each
row is a process of its own.

    python -m benchmarks.gradients
"""

import json
import resource
import subprocess
import sys
import time

import torch

import scoresde as ss

from .report import save

STEPS, COUNT = 10, 64
WAYS = (("dpmpp_2m", "none"), ("dpmpp_2m", "backprop"), ("dpmpp_2m", "checkpoint"),
        ("heun", "none"), ("heun", "backprop"), ("heun", "checkpoint"),
        ("ancestral", "none"), ("ancestral", "backprop"), ("ancestral", "checkpoint"),
        ("torchdiffeq/heun2", "none"), ("torchdiffeq/heun2", "backprop"), ("torchdiffeq/heun2", "checkpoint"),
        ("torchdiffeq/heun2", "adjoint"),
        ("torchsde/srk", "none"), ("torchsde/srk", "backprop"),
        ("torchsde/srk", "checkpoint"))  # fmt: skip


def measure(solver: str, grad: str) -> dict:
    torch.set_num_threads(1)
    model = ss.load("digits").given(label=torch.zeros(1, dtype=torch.int64))
    z = model.process.prior_sample((COUNT, 1, 8, 8), seed=0)
    z.requires_grad_(grad != "none")
    clock = {"clock": "log_snr"} if solver.startswith("torch") else {}
    start = time.perf_counter()
    x = ss.decode(model, z, solver=solver, steps=STEPS, grad=grad, **clock).x
    norm = None
    if grad != "none":
        norm = torch.autograd.grad(x.square().sum(), z)[0].norm().item()
    return {"solver": solver, "grad": grad, "seconds": time.perf_counter() - start,
            "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
            "norm of the gradient": norm}  # fmt: skip


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
        return
    rows: list[dict] = []
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.gradients", *way]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(out)
        if way[1] == "none":
            base = row["peak MiB"]
        rows.append({**row, "MiB more": row["peak MiB"] - base})
    save("gradients", rows, steps=STEPS, samples=COUNT)


if __name__ == "__main__":
    main()
