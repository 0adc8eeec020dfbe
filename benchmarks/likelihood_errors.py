r"""What stated errors of likelihoods rest on: the stated noise of probes, and the share of a coarse path's defect that stays.

The noise of probes is the spread of many repeats with other seeds, on oracles. The share is that of the trained
network: densities along coarse paths against those along a path at a tolerance of 1e-6, with exact divergences.

    python -m benchmarks.likelihood_errors
"""

import torch

import scoresde as ss
from scoresde.likelihood.flow import MISMATCH
from scoresde.training.digits_data import LEVELS, digits

from . import testbed
from .coverage import mixture
from .report import save

POINTS, REPEATS = 30, 60
DIGITS, REFERENCE = 6, {"rtol": 1e-6, "atol": 1e-6, "nodes": 160}


def noise(name: str, oracle: ss.Oracle, nodes: int, probes: int) -> dict:
    x = oracle.data(POINTS, seed=3)
    many = x.repeat_interleave(REPEATS, 0)
    seeds = list(range(REPEATS)) * POINTS
    found = ss.log_likelihood(oracle, many, nodes=nodes, probes=probes, seeds=seeds)
    actual = found.nats.reshape(POINTS, REPEATS).var(1).mean().sqrt()
    stated = found.stderr.square().mean().sqrt()
    return {"what": "noise of probes", "problem": name, "nodes": nodes, "probes": probes, "tolerance": None,
            "actual, nats": actual.item(), "stated, nats": stated.item(), "ratio": (stated / actual).item()}  # fmt: skip


def path(model: ss.ScoreModel, x: torch.Tensor, truth: ss.Likelihood, tolerance: float) -> dict:
    options = {"rtol": tolerance, "atol": tolerance, "nodes": 128}
    found = ss.log_likelihood(model, x, divergence="exact", **options)
    left = (found.nats - truth.nats).square().mean().sqrt().item()
    stated = found.budget["path"].square().mean().sqrt().item()
    return {"what": "defect of the path", "problem": "trained network", "nodes": 128, "probes": None,
            "tolerance": tolerance, "actual, nats": left, "stated, nats": stated, "ratio": stated / left,
            "taken out, nats": stated / MISMATCH, "share left": left * MISMATCH / stated}  # fmt: skip


def main() -> None:
    torch.set_num_threads(2)
    exact, slanted = testbed.exact_digits(ss.VP()), mixture(64, ss.VP())
    rows = [
        noise(name, oracle, nodes, probes)
        for name, oracle in (("exact digits", exact), ("mixture, d = 64", slanted))
        for nodes, probes in ((46, 1), (16, 1), (46, 4))
    ]
    model = ss.load("digits")
    x = ss.dequantize(digits("test").images[:DIGITS], levels=LEVELS, low=-1.0, high=1.0)
    truth = ss.log_likelihood(model, x, divergence="exact", **REFERENCE)
    coarse = [path(model, x, truth, tolerance) for tolerance in (0.3, 0.1, 0.03)]
    empty = {name: None for name in coarse[0]}
    save("likelihood_errors", [{**empty, **row} for row in rows + coarse], repeats=REPEATS)


if __name__ == "__main__":
    main()
