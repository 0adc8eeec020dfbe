r"""Grids where noise knows no bound, or ends where a table of betas does: which of them one default can be.

Three processes: a flow, the same flow up to 1 - 2^-30, and DDPM's table of betas. Three kinds of models of the digits:
exact ones; the embedded network, whose estimates depend on the noise level alone, so that it serves any process;
and networks trained here on those processes, of velocity and of noise, whose estimates of data are as wrong as
such networks are. What is reported is the energy distance to data, and its difference from that of the best
named grid with the error of paired samples, by a jackknife over ten parts.

python -m benchmarks.grids
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.training.digits_data import digits

from . import report, testbed

SAMPLES, PARTS, UPDATES, BATCH = 5000, 10, 6000, 256
NAMED = ("rho", "log_snr", "tan", "asinh", "logistic", "t")
UNSAID = "default, scale unsaid"


class Residual(nn.Module):
    r"""Creates a small network of vectors and a time in [0, 1], which keeps a multiple of its input."""

    def __init__(self, size: int, width: int = 256, blocks: int = 3) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, 17) * math.pi / 2)
        self.first, self.last = nn.Linear(size, width), nn.Linear(width, size)
        self.times = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)])
            for _ in range(blocks)
        )
        self.kept = nn.Linear(width, size)
        for layer in (self.last, self.kept):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        features = self.times(torch.cat([phase.sin(), phase.cos()], 1))
        h = self.first(x)
        for norm, inner, outer in self.blocks:
            h = h + outer(nn.functional.silu(inner(norm(h) + features)))
        return self.last(h) + self.kept(nn.functional.silu(features)) * x


def trained(data: Tensor, process: ss.Process, target: Callable[..., Tensor]) -> nn.Module:
    r"""Returns the average of a network that tells a function of data and noise from noisy data."""

    torch.manual_seed(0)
    network = Residual(data.shape[1])
    optimiser, mean = (
        torch.optim.Adam(network.parameters(), betas=(0.9, 0.99)),
        copy.deepcopy(network),
    )
    for step in range(UPDATES):
        cosine = (1 + math.cos(math.pi * step / UPDATES)) / 2
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 200) * cosine
        x = data[torch.randint(len(data), (BATCH,))]
        x = x + (torch.rand_like(x) - 0.5) / 8
        t, z = (torch.arange(BATCH) + torch.rand(1)) / BATCH, torch.randn_like(x)
        t = t.clamp(process.t_min, process.t_max)
        loss = (network(process.perturb(x, t, z), t) - target(x, z)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            for p, q in zip(mean.parameters(), network.parameters(), strict=True):
                p.lerp_(q, 1 - decay)
    return mean.eval().requires_grad_(False)


class Within(nn.Module):
    r"""Creates an "edm" network that is asked for no noise level above those it was trained on."""

    def __init__(self, network: nn.Module, highest: float) -> None:
        super().__init__()
        self.network, self.highest = network, math.log(highest) / 4

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.network(x, t.clamp(max=self.highest), **condition)


def table() -> ss.LinearProcess:
    r"""Returns the process of DDPM's betas."""

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64) * 1000

    def rate(t: Tensor) -> Tensor:
        return betas[(t * 1000).long().clamp(0, 999)]

    return ss.LinearProcess(lambda t: -rate(t) / 2, lambda t: rate(t).sqrt())


PROCESSES: dict[str, Callable[[], ss.Process]] = {
    "flow": ss.Interpolant,
    "flow, t_max = 1 - 2^-30": lambda: ss.Interpolant(t_max=1 - 2**-30),
    "DDPM's table": table,
}


class Case(NamedTuple):
    r"""A model, the data it is of, and what is tried on it."""

    kind: str
    process: str
    model: ss.ScoreModel
    data: Tensor
    solvers: tuple[str, ...]
    steps: tuple[int, ...]


def real() -> Tensor:
    data = torch.cat([digits(part).images for part in ("train", "test")])
    return ss.dequantize(data, levels=17).float()


def cases() -> Iterator[Case]:
    y = real()
    for name, process in PROCESSES.items():
        exact = testbed.exact_digits(process(), torch.float32)
        known = exact.data(SAMPLES, seed=9).float()
        yield Case("exact", name, exact, known, ("dpmpp_2m", "ddim"), (5, 10, 20))
    flat, nets = y.flatten(1), {}
    for name, process in PROCESSES.items():
        noise = process() if name == "DDPM's table" else ss.Interpolant()
        said = "noise" if name == "DDPM's table" else "velocity"
        if said not in nets:
            goal = (lambda x, z: z) if said == "noise" else (lambda x, z: z - x)
            nets[said] = trained(flat, noise, goal)
        model = ss.NetworkScore(nets[said], process(), said, shape=flat.shape[1:])
        model.moments = ss.moments(flat)
        yield Case("trained here", name, model, flat, ("dpmpp_2m",), (5, 10, 20))
    edm = ss.load("digits")
    for name, process in PROCESSES.items():
        inner = Within(edm.network, edm.process.t_max)
        model = ss.NetworkScore(inner, process(), "edm", conditions=edm.conditions, shape=edm.shape, data_std=edm.data_std)  # fmt: skip
        model.moments = edm.moments
        yield Case("embedded", name, model, y, ("dpmpp_2m",), (10,))


def energies(x: Tensor, data: Tensor) -> Tensor:
    r"""Returns the energy distances to data, up to a constant: of all samples, then without each part."""

    x, data = x.flatten(1), data.flatten(1)
    parts = x.split(len(x) // PARTS)
    cross = torch.stack([torch.cdist(part, data).sum() for part in parts]) / len(data)
    among = torch.stack([torch.stack([torch.cdist(a, b).sum() for b in parts]) for a in parts])

    def energy(kept: Tensor) -> Tensor:
        n = int(kept.sum()) * len(parts[0])
        return 2 * cross[kept].sum() / n - among[kept][:, kept].sum() / n / (n - 1)

    left = [torch.arange(PARTS) != i for i in range(PARTS)]
    return torch.stack([energy(kept) for kept in (torch.ones(PARTS, dtype=torch.bool), *left)])


def sampled(case: Case, solver: str, steps: int) -> dict[str, Tensor]:
    r"""The energies by grid; that of the default is the one of its times."""

    found, options = {}, {"solver": solver, "steps": steps, "batch_size": 1000}
    for grid in NAMED:
        s = ss.sample(case.model, SAMPLES, grid=grid, **options)
        found[grid] = energies(s.x, case.data)
    if isinstance(case.model, ss.NetworkScore) and case.kind != "embedded":
        bare = ss.NetworkScore(case.model.network, case.model.process, case.model.predicts, shape=case.model.shape)  # fmt: skip
        found[UNSAID] = energies(ss.sample(bare, SAMPLES, **options).x, case.data)
    return found


def chosen(case: Case) -> str:
    r"""The named grid that is the default, by its times."""

    times = ss.sample(case.model, 1, steps=7, solver="ddim").times
    return next(
        grid for grid in NAMED
        if torch.equal(times, ss.sample(case.model, 1, steps=7, grid=grid, solver="ddim").times)
    )  # fmt: skip


def rows(case: Case) -> Iterator[dict[str, Any]]:
    flat = case.data.flatten(1)
    floor = torch.cdist(flat, flat).sum() / len(flat) / (len(flat) - 1)
    default = chosen(case)
    for solver in case.solvers:
        for steps in case.steps:
            found = sampled(case, solver, steps)
            best = min(NAMED, key=lambda grid: float(found[grid][0]))
            for grid, energy in found.items():
                gap = energy - found[best]
                spread = gap[1:] - gap[1:].mean()
                error = ((PARTS - 1) / PARTS * spread.square().sum()).sqrt()
                yield {
                    "model": case.kind, "process": case.process, "solver": solver, "steps": steps, "grid": grid,
                    "default": grid == default, "energy": (energy[0] - floor).item(),
                    "above the best": gap[0].item(), "error": error.item(),
                }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in cases():
            found += rows(case)
            report.save("grids", found, samples=SAMPLES)


if __name__ == "__main__":
    main()
