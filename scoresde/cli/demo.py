r"""A tour with the embedded digits: samples, likelihoods, round trips and edits, in pictures."""

import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .. import plots
from ..editing.verb import edit
from ..latents.round_trip import reconstruct
from ..likelihood import bits_per_dim, discrete_log_likelihood
from ..metrics import energy_distance, floor
from ..models.score_model import ScoreModel
from ..runs.options import RunOptions
from ..sampling import sample
from ..training.digits_data import LEVELS, digits
from ..zoo import load

FOLDER = Path("demo")
SAMPLES, IMAGES = 360, 96
SOLVERS: dict[str, RunOptions] = {
    "torchdiffeq/dopri5": {"rtol": 1e-2, "atol": 1e-2},
    "torchdiffeq/midpoint": {"steps": 10},
    "torchsde/srk": {"steps": 20},
    "em": {"steps": 40},
    "ancestral": {"steps": 40},
    "heun": {"steps": 10},
    "ddim": {"steps": 20},
    "exponential_3": {"steps": 20},
    "dpmpp_2m": {"steps": 10},
}
SHOWN = ("torchdiffeq/dopri5", "torchsde/srk", "dpmpp_2m")
console = Console()


class Run(NamedTuple):
    r"""Samples of one solver, and their cost."""

    x: Tensor
    calls: str
    seconds: float


def main() -> None:
    r"""Writes all pictures into `demo/` and prints the table."""

    model = load("digits")
    runs = samples(model)
    distances(runs)
    likelihoods(model)
    round_trip(model)
    three_to_eight(model)
    console.print(f"Pictures and table are in {FOLDER.resolve()}.")


def samples(model: ScoreModel) -> dict[str, Run]:
    r"""Draws the same samples with each solver."""

    runs = {}
    for name, known in SOLVERS.items():
        options: RunOptions = {**known, "solver": name, "progress": True}
        label, start = torch.arange(SAMPLES) % 10, time.perf_counter()
        s = sample(model, SAMPLES, label=label, **options)
        low, high = int(s.calls.min()), int(s.calls.max())
        calls = str(low) if low == high else f"{low}-{high}"
        runs[name] = Run(s.x, calls, time.perf_counter() - start)
    groups = {
        f"{name}\n{run.calls} calls, {run.seconds:.1f} s": run.x[:40]
        for name, run in runs.items()
        if name in SHOWN
    }
    plots.images(FOLDER / "samples.png", groups, columns=10)
    return runs


def distances(runs: dict[str, Run]) -> None:
    r"""Prints the energy distance between each solver's samples and real digits, and its floor."""

    train, test = digits("train").images, digits("test").images
    table = Table("solver", "calls", "seconds", "energy distance to real digits")
    rows = []
    for name, run in runs.items():
        rows.append((name, run.calls, f"{run.seconds:.1f}", f"{energy_distance(run.x, test):.4f}"))
    mean, std = floor(torch.cat([train, test]), len(test))
    rows.append(("real against real", "", "", f"{mean:.4f} +- {std:.4f}"))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = ["| solver | calls | seconds | energy distance |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "table.md").write_text("\n".join(lines) + "\n")


def likelihoods(model: ScoreModel) -> None:
    r"""Draws the bits per dimension of held-out digits, of shuffled pixels and of noise."""

    real = digits("test").images[:IMAGES]
    draw = torch.Generator().manual_seed(0)
    order = torch.rand(IMAGES, 64, generator=draw).argsort(1)
    shuffled = real.flatten(1).gather(1, order).reshape(real.shape)
    noise = torch.randint(0, LEVELS, real.shape, generator=draw) / 8 - 1
    groups = {}
    for name, x in (("held-out digits", real), ("shuffled pixels", shuffled), ("noise", noise)):
        found = discrete_log_likelihood(model, x, levels=LEVELS, probes=1, progress=True)
        bits = bits_per_dim(found)
        within = float(found.total.mean()) / (found.dimension * math.log(2))
        words = f"{bits.mean():.2f} +- {bits.std() / IMAGES**0.5:.2f} (each within {within:.2f})"
        console.print(f"{name}: {words} bits/dim")
        groups[name] = (bits, words)
    plots.histogram(FOLDER / "likelihood.png", groups, "bits per dimension")


def round_trip(model: ScoreModel) -> None:
    r"""Draws digits, their latents, and their reconstructions."""

    test = digits("test")
    x, label = test.images[:40], test.labels[:40]
    r = reconstruct(model, x, label=label, progress=True)
    words = f"what comes back: largest error {r.max.max():.1e}"
    console.print(f"round trip of {len(x)} digits: {words}, {int(r.calls.max())} calls")
    latent = r.latent.x / r.latent.x.std() / 2
    groups = {"held-out digits": x, "their latents": latent, words: r.x}
    plots.images(FOLDER / "round_trip.png", groups, columns=10)


def three_to_eight(model: ScoreModel) -> None:
    r"""Turns threes into eights, and draws both, by the noise level of the edit."""

    test = digits("test")
    x = test.images[test.labels == 3][:10]
    three, eight = (model.given(label=torch.tensor(label)) for label in (3, 8))
    groups = {"threes": x}
    for level in (1.0, 2.0, 4.0):
        e = edit(three, eight, x, noise_level=level, rtol=1e-4, atol=1e-4)
        groups[f"as eights, by way of noise level {level:g}"] = e.x
    plots.images(FOLDER / "edit.png", groups, columns=10, across=1)


if __name__ == "__main__":
    main()
