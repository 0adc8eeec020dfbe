r"""Few-step models beside the flow that they were made from.

The digits: the model in a folder that `scoresde distill` writes, where it is missing, at 1, 2 and 4 calls, beside 20
steps of the embedded model, by the energy distance to all real digits. A mixture in the plane: students of one small
network by each method, after equally many steps of training.

python -m benchmarks.distilling [FOLDER]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import distilling
from scoresde.cli.distill import distill
from scoresde.metrics import energy_distance
from scoresde.training.digits_data import LEVELS, digits

from .report import save

COUNT, HELD_OUT = 5000, (101,)  # samples, and the seeds of their noise, which no training used
RECIPE = {"paths": 30_000, "solver": "dpmpp_2m", "training_steps": 1500}  # of the digits
PARTS = 10  # of the jackknife
PATHS, TRAINING, BATCH = 2000, 900, 256
MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
Draw = Callable[[int], Tensor]


def real() -> Tensor:
    r"""All real digits, dequantised."""

    return ss.dequantize(
        torch.cat([digits(part).images for part in ("train", "test")]), levels=LEVELS
    )


def above(x: Tensor, y: Tensor, data: Tensor) -> tuple[float, float]:
    r"""By how much the energy distance of samples x exceeds that of y, with its standard error by the jackknife."""

    def difference(rows: Tensor) -> float:
        return energy_distance(x[rows], data) - energy_distance(y[rows], data)

    part = torch.arange(len(x)) % PARTS
    left = torch.tensor([difference((part != k).nonzero()[:, 0]) for k in range(PARTS)])
    variance = (PARTS - 1) / PARTS * (left - left.mean()).square().sum()
    return difference(torch.arange(len(x))), float(variance.sqrt())


def beside(
    problem: str, data: Tensor, flow: Draw, students: dict[tuple[str, int], Draw]
) -> list[dict]:
    r"""Rows of the flow and of students, by method and calls, with the mean over held-out seeds."""

    known = {seed: flow(seed) for seed in HELD_OUT}
    mean = sum(energy_distance(x, data) for x in known.values()) / len(known)
    rows = [
        {
            "problem": problem,
            "method": "dpmpp_2m, 20 steps",
            "calls": 21,
            "energy x 1000": 1e3 * mean,
        }
    ]
    for (method, calls), draw in students.items():
        found = [(x := draw(seed), *above(x, known[seed], data)) for seed in HELD_OUT]
        mean = sum(energy_distance(x, data) for x, *_ in found) / len(found)
        excess = sum(value for _, value, _ in found) / len(found)
        error = sum(e**2 for *_, e in found) ** 0.5 / len(found)
        rows.append({"problem": problem, "method": method, "calls": calls, "energy x 1000": 1e3 * mean,
                     "above the flow x 1000": 1e3 * excess, "standard error x 1000": 1e3 * error,
                     "in standard errors": excess / error})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def of_digits(folder: Path, problem: str, calls: tuple[int, ...], **given: Tensor) -> list[dict]:
    teacher, student = ss.load("digits"), ss.load(folder)

    def drawn(model: ss.ScoreModel, **options: object) -> Draw:
        return lambda seed: (
            ss.sample(model, COUNT, seed=seed, batch_size=500, **given, **options).x
        )

    students = {("flow map", n): drawn(student, steps=n) for n in calls}
    few = {"solver": "dpmpp_2m", "grid": "tan"}
    students |= {("dpmpp_2m", n): drawn(teacher, steps=n - 1, **few) for n in calls[1:]}
    return beside(problem, real(), drawn(teacher, solver="dpmpp_2m", steps=20), students)


class Small(nn.Module):
    r"""A network of two hidden layers that sees the noise level."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.tensor([0.5, 1.0, 2.0, 4.0])
        return self.layers(torch.cat([x, angles.sin(), angles.cos()], 1))


def of_mixture() -> list[dict]:
    model = ss.MixtureOracle(MEANS, 0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ss.NetworkScore(Small(), model.process, "edm", shape=(2,), data_std=model.data_scale)
    data, shared = (
        model.data(PATHS, seed=5),
        {"student": net, "batch_size": BATCH, "progress": False},
    )
    paths = distilling.trajectories(model, PATHS, seed=7, progress=False)
    third = TRAINING // 3  # of three rounds
    found = {
        "flow map": distilling.flow_map(model, paths, steps=TRAINING, **shared),
        "consistency": distilling.consistency(
            model, data, steps=TRAINING, solver="edm_heun", **shared
        ),
        "progressive": distilling.progressive(model, data, steps=third, tolerance=0.01, **shared),
    }

    def drawn(d: distilling.Distilled) -> Draw:
        return lambda seed: ss.sample(d.model, COUNT, seed=seed, plan=d.plan).x

    flow = lambda seed: ss.sample(model, COUNT, seed=seed, solver="dpmpp_2m", steps=20).x
    students = {(name, 2): drawn(d) for name, d in found.items()}
    return beside("mixture", model.data(COUNT, seed=9), flow, students)


def main() -> None:
    folder, label = Path(*sys.argv[1:] or ["runs/digits_2step"]), torch.arange(COUNT) % 10
    if not (folder / "model.json").exists():
        distill("digits", folder, **RECIPE)
    rows = [
        *of_mixture(),
        *of_digits(folder, "digits", (1, 2, 4)),
        *of_digits(folder, "digits, labelled", (2,), label=label),
    ]
    save("distilling", rows, samples=COUNT, seeds=list(HELD_OUT))


if __name__ == "__main__":
    main()
