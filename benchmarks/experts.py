r"""Two networks for one range of noise levels each, against one network of twice the size, on digits.

All are trained by the same loss at noise levels of the same distribution. Each expert takes as many steps as the one
network, whose steps cost twice as much, so both sides take about the same time. Once more, both experts together
take as many steps as the one network.

    python -m benchmarks.experts
"""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

import scoresde as ss
from scoresde import metrics
from scoresde.losses import denoising
from scoresde.networks import UNet
from scoresde.training.digits_data import LEVELS, digits
from scoresde.training.loop import train

from .report import save

SMALL, LARGE = 16, 24  # widths; the square of their ratio is about 2
BATCH, STEPS, RATE, SEEDS = 128, 600, 4e-3, (0, 1, 2)
CENTRE, SPREAD = 1.7, 1.2  # of the log-SNR of all levels
EDGE = math.exp(-CENTRE)  # the median, so both ranges are trained on equally often
TESTED = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0)
REPEATS, SAMPLES = 4, 1000
SHARES = {
    "all": (0.0, 1.0),
    "low": (0.5, 1.0),
    "high": (0.0, 0.5),
}  # of the log-SNR's distribution


def fitted(width: int, levels: str, steps: int, seed: int) -> tuple[ss.NetworkScore, float]:
    r"""Trains a network on one range of noise levels, and returns it with the seconds that this took."""

    images, _ = digits("train")
    low, high = SHARES[levels]
    settings = {"width": width, "multipliers": [1, 2], "blocks": 1, "dropout": 0.1}
    torch.manual_seed(seed)
    network = UNet(**settings)
    std = float(images.square().mean().sqrt())

    def score(one: torch.nn.Module) -> ss.NetworkScore:
        return ss.NetworkScore(one, ss.EDM(), "edm", shape=(1, 8, 8), data_std=std)

    model = score(network)

    def loss(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        torch.manual_seed(seed * 1_000_003 + step)  # for dropout
        index = torch.randint(len(images), (BATCH,), generator=draw)
        x = ss.dequantize(images[index], levels=LEVELS, seed=step, first_index=seed << 32)
        share = low + (high - low) * torch.rand(BATCH, generator=draw, dtype=torch.float64)
        log_snr = CENTRE + SPREAD * torch.special.ndtri(share.clamp(1e-6, 1 - 1e-6))
        z = torch.randn(x.shape, generator=draw)
        return denoising(model, x, log_snr.float(), z).mean()

    start = time.process_time()
    for progress in train(network, loss, steps=steps, lr=RATE):
        average = progress.average
    return score(average.eval()).requires_grad_(False), time.process_time() - start


def errors(model: ss.ScoreModel, level: float) -> Tensor:
    r"""Returns the squared error for each held-out digit."""

    images, _ = digits("test")
    x = ss.dequantize(images.repeat(REPEATS, 1, 1, 1), levels=LEVELS, seed=7)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    found = (model.denoise(x + level * z, torch.tensor(level)) - x).square().flatten(1).mean(1)
    return found.reshape(REPEATS, -1).mean(0)


def compared(seed: int) -> dict[str, tuple[ss.ScoreModel, float]]:
    r"""Returns the models by name, each with the seconds of its training."""

    one, own = fitted(LARGE, "all", STEPS, seed)
    found: dict[str, tuple[ss.ScoreModel, float]] = {"one network": (one, own)}
    for name, steps in (("experts, equal time", STEPS), ("experts, equal steps", STEPS // 2)):
        low, first = fitted(SMALL, "low", steps, seed)
        high, second = fitted(SMALL, "high", steps, seed)
        found[name] = (ss.guidance.experts([low, high], [EDGE]), first + second)
    return found


def of_levels(models: Sequence[dict[str, tuple[ss.ScoreModel, float]]]) -> list[dict]:
    r"""Returns the ratio of errors on held-out digits, by level, with its standard error over digits and seeds."""

    rows = []
    for level in TESTED:
        row = {"table": "levels", "noise level": level}
        base = torch.stack([errors(found["one network"][0], level) for found in models])
        row["error of one network"] = base.mean().item()
        for name in list(models[0])[1:]:
            own = torch.stack([errors(found[name][0], level) for found in models])
            ratio = own.mean() / base.mean()
            images = (own - ratio * base).mean(0)
            of_images = images.std() / math.sqrt(len(images))
            seeds = (own - ratio * base).mean(1)
            of_seeds = seeds.std() / math.sqrt(len(seeds))
            row[f"{name}, ratio"] = ratio.item()
            row[f"{name}, standard error"] = (
                torch.hypot(of_images, of_seeds) / base.mean()
            ).item()
        rows.append(row)
    return rows


def of_samples(models: Sequence[dict[str, tuple[ss.ScoreModel, float]]]) -> list[dict]:
    r"""Returns energy distances to held-out digits, means over seeds, with standard errors over seeds."""

    held, rows = digits("test").images, []
    for name in models[0]:
        distances, taken = [], 0.0
        for seed, found in zip(SEEDS, models, strict=True):
            start = time.process_time()
            s = ss.sample(
                found[name][0], SAMPLES, solver="dpmpp_2m", steps=20, seed=seed, batch_size=500
            )
            taken += time.process_time() - start
            distances.append(metrics.energy_distance(s.x, held))
        numbers = torch.tensor(distances)
        rows.append({
            "table": "samples", "model": name,
            "parameters": sum(p.numel() for p in models[0][name][0].parameters()),
            "seconds of training": sum(found[name][1] for found in models) / len(models),
            "ms per sample": 1000 * taken / SAMPLES / len(models),
            "energy distance x 1000": 1000 * numbers.mean().item(),
            "standard error x 1000": 1000 * numbers.std().item() / math.sqrt(len(numbers)),
        })  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(1)
    models = []
    for seed in SEEDS:
        models.append(compared(seed))
        print(
            "seed",
            seed,
            {name: round(seconds) for name, (_, seconds) in models[-1].items()},
            flush=True,
        )
    with torch.no_grad():
        rows = of_levels(models) + of_samples(models)
    save("experts", rows, steps=STEPS, seeds=list(SEEDS), samples=SAMPLES, edge=round(EDGE, 4))


if __name__ == "__main__":
    main()
