r"""Grids where noise knows no bound: small networks of digits, sampled on every grid.

A flow, the same flow up to 1 - 2^-30, and a table of DDPM's betas with noise prediction, each trained here in
half a minute. What is reported is the energy distance to digits, and its difference from that of the best grid with
the error of paired samples, by a jackknife over ten parts.

python -m benchmarks.grids
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.training.digits_data import digits

from . import report

SAMPLES, PARTS, UPDATES, BATCH, STEPS = 5000, 10, 2000, 256, 10
CASES = (
    ("default", False),
    ("default", True),
    ("t", True),
    ("log_snr", True),
    ("tan", True),
    ("asinh", True),
)


class Network(nn.Module):
    r"""Creates a small network of vectors and a time in [0, 1]."""

    def __init__(self, size: int, width: int = 256) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, 17) * math.pi / 2)
        self.layers = nn.Sequential(
            nn.Linear(size + 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, size),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        return self.layers(torch.cat([x, phase.sin(), phase.cos()], 1))


def trained(data: Tensor, process: ss.Process, target: Callable[..., Tensor]) -> Network:
    r"""Returns a network that tells a function of data, noise and time from noisy data."""

    torch.manual_seed(0)
    network = Network(data.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, UPDATES)
    for _ in range(UPDATES):
        x = data[torch.randint(len(data), (BATCH,))]
        x = x + (torch.rand_like(x) - 0.5) / 8
        t, z = torch.rand(BATCH).clamp(process.t_min, process.t_max), torch.randn_like(x)
        loss = (network(process.perturb(x, t, z), t) - target(x, z)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def table() -> ss.LinearProcess:
    r"""Returns the process of DDPM's betas."""

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64) * 1000

    def rate(t: Tensor) -> Tensor:
        return betas[(t * 1000).long().clamp(0, 999)]

    return ss.LinearProcess(lambda t: -rate(t) / 2, lambda t: rate(t).sqrt())


def models(data: Tensor) -> Iterator[tuple[str, ss.NetworkScore]]:
    flow, ddpm = trained(data, ss.Interpolant(), lambda x, z: z - x), table()
    noise = trained(data, ddpm, lambda x, z: z)
    shape = (data.shape[1],)
    for name, process in (
        ("flow", ss.Interpolant()),
        ("flow, t_max = 1 - 2^-30", ss.Interpolant(t_max=1 - 2**-30)),
    ):
        yield name, ss.NetworkScore(flow, process, "velocity", shape=shape)
    yield "DDPM's table", ss.NetworkScore(noise, ddpm, "noise", shape=shape)


def energies(x: Tensor, data: Tensor) -> Tensor:
    r"""Returns the energy distances to data, up to a constant: of all samples, then without each part."""

    parts = x.split(len(x) // PARTS)
    cross = torch.stack([torch.cdist(part, data).sum() for part in parts]) / len(data)
    among = torch.stack([torch.stack([torch.cdist(a, b).sum() for b in parts]) for a in parts])

    def energy(kept: Tensor) -> Tensor:
        n = int(kept.sum()) * len(parts[0])
        return 2 * cross[kept].sum() / n - among[kept][:, kept].sum() / n / (n - 1)

    left = [torch.arange(PARTS) != i for i in range(PARTS)]
    return torch.stack([energy(kept) for kept in (torch.ones(PARTS, dtype=torch.bool), *left)])


def rows() -> Iterator[dict[str, Any]]:
    data = torch.cat([digits(part).images for part in ("train", "test")]).flatten(1)
    y = ss.dequantize(data, levels=17)
    floor = torch.cdist(y, y).sum() / len(y) / (len(y) - 1)
    for name, model in models(data):
        found = {}
        for grid, known in CASES:
            model.moments = ss.moments(y) if known else None
            own = {} if grid == "default" else {"grid": grid}
            found[grid, known] = (
                energies(ss.sample(model, SAMPLES, steps=STEPS, **own).x, y) - floor
            )
        best = min(found.values(), key=lambda energy: float(energy[0]))
        for (grid, known), energy in found.items():
            gap = energy - best
            spread = gap[1:] - gap[1:].mean()
            error = ((PARTS - 1) / PARTS * spread.square().sum()).sqrt()
            yield {
                "model": name, "grid": grid, "scale known": known, "energy": energy[0].item(),
                "above the best": gap[0].item(), "error": error.item(),
            }  # fmt: skip


def main() -> None:
    torch.set_num_threads(2)
    report.save("grids", list(rows()), samples=SAMPLES, steps=STEPS, solver="dpmpp_2m")


if __name__ == "__main__":
    main()
