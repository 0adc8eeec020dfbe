r"""How often the true error lies within the stated one: 1000 points per oracle and process."""

import time

import torch

import scoresde as ss

from .report import save

POINTS = 1000
PROCESSES = {"VP": ss.VP(), "VE": ss.VE(), "SubVP": ss.SubVP(), "Interpolant": ss.Interpolant()}


def mixture(d: int, process: ss.Process) -> ss.Oracle:
    r"""A mixture whose components differ in all directions, so that no probe is exact."""

    draw = torch.Generator().manual_seed(d)
    means = torch.randn(6, d, generator=draw, dtype=torch.float64)
    return ss.KernelOracle(means - means.mean(0), 0.5, process)


def gaussian(d: int, process: ss.Process) -> ss.Oracle:
    r"""A Gaussian of which the model knows one variance alone, so that its axes are not known."""

    draw = torch.Generator().manual_seed(d)
    stds = torch.linspace(0.2, 1.5, d, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64))[0]
    oracle = ss.GaussianOracle(torch.zeros(d).double(), axes * stds**2 @ axes.T, process)
    oracle.moments = None  # type: ignore[assignment]
    return oracle


def measure(name: str, kind: str, d: int, oracle: ss.Oracle, options: dict) -> dict:
    x = oracle.data(POINTS if d < 1000 else POINTS // 4, seed=11)
    start = time.perf_counter()
    found = ss.log_likelihood(oracle, x, **options)
    error = (found.nats - oracle.log_density(x.double(), found.t_min)).abs()
    return {
        "process": name, "oracle": kind, "d": d, "divergence": found.provenance["divergence"],
        "points": len(x), "path calls": found.calls.double().mean().item(),
        "products": found.derivatives.double().mean().item(),
        "rms error, nats": error.square().mean().sqrt().item(),
        "stated, nats": found.total.mean().item(),
        "within": (error <= found.total).double().mean().item(),
        "within two standard errors": (error <= 2 * found.stderr).double().mean().item(),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(2)
    rows = []
    for name, process in PROCESSES.items():
        for d in (2, 64, 3072):
            for probes in (1, None) if d == 2 else (1,):
                options = {"probes": probes, "batch_size": 125}
                rows.append(measure(name, "mixture", d, mixture(d, process), options))
        options = {"probes": 1, "batch_size": 125}
        rows.append(measure(name, "Gaussian, axes unknown", 64, gaussian(64, process), options))
    save("coverage", rows, points=POINTS)


if __name__ == "__main__":
    main()
