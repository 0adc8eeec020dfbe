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


class Classes(torch.nn.Module):
    r"""Gaussian classes far from one another, as a network that is asked for one of them."""

    def __init__(self, process: ss.Process) -> None:
        super().__init__()
        covariance = torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double()
        self.classes = [
            ss.GaussianOracle(torch.tensor([at, 0.0]).double(), covariance, process)
            for at in (10.0, -10.0)
        ]

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        found = torch.stack([oracle.denoise(x, t) for oracle in self.classes])
        return found[label, torch.arange(len(x))]


def conditional(name: str, process: ss.Process) -> dict:
    r"""The coverage under a condition, of a model that knows the moments of all classes together."""

    network = Classes(process)
    model = ss.NetworkScore(network, process, predicts="data", shape=(2,), conditions=["label"])
    model.moments = ss.moments(torch.cat([oracle.data(4000) for oracle in network.classes]))
    options = {"label": 0, "batch_size": 125}
    return measure(name, "class of two", 2, network.classes[0], options, model)


def measure(
    name: str,
    kind: str,
    d: int,
    oracle: ss.Oracle,
    options: dict,
    model: ss.ScoreModel | None = None,
) -> dict:
    x = oracle.data(POINTS if d < 1000 else POINTS // 4, seed=11)
    start = time.perf_counter()
    found = ss.log_likelihood(model or oracle, x, **options)
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
    torch.set_num_threads(1)
    rows = []
    for name, process in PROCESSES.items():
        for d in (2, 64, 3072):
            for probes in (1, None) if d == 2 else (1,):
                options = {"probes": probes, "batch_size": 125}
                rows.append(measure(name, "mixture", d, mixture(d, process), options))
        rows.append(conditional(name, process))
        options = {"probes": 1, "batch_size": 125}
        rows.append(measure(name, "Gaussian, axes unknown", 64, gaussian(64, process), options))
    save("coverage", rows, points=POINTS)


if __name__ == "__main__":
    main()
