r"""The memory of likelihoods beside that of one vector-Jacobian product, at equal batch.

A U-Net with random weights on images of 3 x 32 x 32, 16 at once, and the embedded network on 64 digits.
Each row is a process of its own; the memory is that above the process before.

    python -m benchmarks.likelihood_memory
"""

import json
import resource
import subprocess
import sys
import time

import torch

import scoresde as ss
from scoresde.networks import UNet

from .report import save

WAYS = ("one vector-Jacobian product", "one probe per node", "a fixed probe")
MODELS = ("U-Net, 3 x 32 x 32", "digits, 1 x 8 x 8")


def problem(name: str) -> tuple[ss.ScoreModel, torch.Tensor]:
    if name == MODELS[1]:
        return ss.load("digits"), torch.randn(64, 1, 8, 8)
    torch.manual_seed(0)
    model = ss.NetworkScore(
        UNet(3, width=64, multipliers=(1, 2, 2)).eval(), ss.VP(), "noise", shape=(3, 32, 32)
    )
    return model, torch.randn(16, 3, 32, 32)


def measure(name: str, way: str) -> dict:
    torch.set_num_threads(2)
    model, x = problem(name)
    with torch.no_grad():
        model.denoise(x[:1], torch.full((1,), 0.5))  # what the first call takes
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    if way == WAYS[0]:
        leaf = x.clone().requires_grad_()
        out = model.denoise(leaf, torch.full((len(x),), 0.5))
        torch.autograd.grad(out, leaf, torch.ones_like(x))
    else:
        kind = "hutchinson" if way == WAYS[1] else "fixed"
        ss.log_likelihood(model, x, divergence=kind, nodes=8, solver="exponential_2", steps=8)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"model": name, "way": way, "peak MiB": peak, "seconds": time.perf_counter() - start}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
        return
    rows: list[dict] = []
    base = 1.0
    for name in MODELS:
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.likelihood_memory", name, way]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(out)
            base = row["peak MiB"] if way == WAYS[0] else base
            rows.append({**row, "over one product": row["peak MiB"] / base})
    save("likelihood_memory", rows)


if __name__ == "__main__":
    main()
