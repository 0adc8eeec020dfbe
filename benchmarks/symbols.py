r"""The 17 grey levels of digits as symbols: learned vectors and bits of the Gray code, with small networks, against frequencies.

The bound is that of `ss.symbols.elbo` on held-out digits, in bits per pixel. The distance is the total variation
between the frequencies of symbols of samples and of held-out digits, the mean over pixels.

    python -m benchmarks.symbols
"""

import math
import time

import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.losses.levels import Importance, LogUniform, time_warp
from scoresde.networks import UNet
from scoresde.training.digits_data import LEVELS, digits

from .report import save

STEPS, BATCH, RATE, SEED = 400, 128, 4e-3, 0
WIDTH, SAMPLES, RUN_STEPS = 4, 500, 40
BASE = LogUniform(0.05, 50.0)


class Logits(nn.Module):
    r"""A small U-Net on vectors of 64 symbols, which returns their logits."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.inner = UNet(channels=16, width=16, multipliers=[1, 2], blocks=1, dropout=0.1)
        self.first, self.last = nn.Linear(width, 16), nn.Linear(16, count)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.first(x).mT.reshape(len(x), 16, 8, 8)
        return self.last((h + self.inner(h, level)).flatten(2).mT)


class OfBits(nn.Module):
    r"""A small U-Net on the bits of 64 symbols."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = UNet(channels=width, width=16, multipliers=[1, 2], blocks=1, dropout=0.1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.inner(x.mT.reshape(len(x), -1, 8, 8), level).flatten(2).mT


def symbols(split: str) -> Tensor:
    r"""Returns the grey levels of digits as whole numbers, with shape (N, 64)."""

    return ((digits(split).images.flatten(1) + 1) * 8).round().long()


def vectors(levels: LogUniform | Importance) -> tuple[ss.ScoreModel, float]:
    r"""Returns a trained model of learned vectors, and the seconds that this took."""

    torch.manual_seed(SEED)
    model = ss.symbols.EmbeddedScore(
        Logits(WIDTH, LEVELS), ss.symbols.Embedding(LEVELS, WIDTH), ss.VP(), shape=(64,), evidence=True
    )  # fmt: skip
    return trained(model, loss="cross_entropy", levels=levels)


def bits() -> tuple[ss.ScoreModel, float]:
    r"""Returns a trained model of bits, and the seconds that this took."""

    torch.manual_seed(SEED)
    form = ss.symbols.Bits(LEVELS, gray=True, shape=(64,))
    model = ss.NetworkScore(OfBits(form.width), ss.VP(), "edm", shape=form.shape, data_std=1.0)
    model.transform = form
    return trained(model)


def trained(model: ss.NetworkScore, **options: object) -> tuple[ss.ScoreModel, float]:
    r"""Trains a model on the symbols of digits."""

    start = time.perf_counter()
    found = ss.train(
        model, symbols("train"), steps=STEPS, batch_size=BATCH, lr=RATE, seed=SEED, assessed=False, **options
    )  # fmt: skip
    return found.model, time.perf_counter() - start


def warped(model: ss.ScoreModel) -> Importance:
    r"""Returns the levels at which the cross-entropy of a model rises evenly."""

    x = symbols("train")
    log_snr = BASE.log_snr(model.process, (torch.arange(len(x)).double() + 0.5) / len(x))
    z = torch.randn(len(x), 64, WIDTH, generator=torch.Generator().manual_seed(SEED))
    loss = ss.losses.cross_entropy(model, x, log_snr, z).detach()
    return time_warp(model.process, log_snr, loss, base=BASE)


def shares(x: Tensor) -> Tensor:
    r"""Returns the frequencies of symbols at each pixel, with shape (64, 17)."""

    return nn.functional.one_hot(x, LEVELS).double().mean(0)


def row(name: str, model: ss.ScoreModel, seconds: float) -> dict[str, object]:
    r"""Returns the figures of a model."""

    held = symbols("test")
    bound = ss.symbols.elbo(model, held, nodes=8, draws=8)
    code = -bound.nats / (64 * math.log(2))
    s = ss.sample(model, SAMPLES, steps=RUN_STEPS, seed=1, path=True)
    apart = (shares(s.x) - shares(held)).abs().sum(1).mean() / 2
    sure = ss.symbols.probabilities(model, s).amax(-1).mean()
    return {
        "model": name,
        "seconds of training": seconds,
        "bits per pixel, at most": float(code.mean()),
        "standard error": float(code.std()) / math.sqrt(len(code)),
        "total variation": float(apart),
        "mean probability of the symbols": float(sure),
    }


def independent() -> dict[str, object]:
    r"""Returns the figures of independent pixels, with the frequencies of the training data plus 1 / 17."""

    train, held = symbols("train"), symbols("test")
    counts = nn.functional.one_hot(train, LEVELS).double().sum(0) + 1 / LEVELS
    share = counts / counts.sum(1, keepdim=True)
    code = -share.log2()[torch.arange(64), held].mean(1)
    return {
        "model": "frequencies of each pixel",
        "seconds of training": None,
        "bits per pixel, at most": float(code.mean()),
        "standard error": float(code.std()) / math.sqrt(len(code)),
        "total variation": float((share - shares(held)).abs().sum(1).mean() / 2),
        "mean probability of the symbols": None,
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = [independent()]
    even, seconds = vectors(BASE)
    rows.append(row("vectors, levels even in log-SNR", even, seconds))
    rows.append(row("vectors, levels by time warping", *vectors(warped(even))))
    rows.append(row("bits of the Gray code", *bits()))
    save("symbols", rows, steps=STEPS, samples=SAMPLES)


if __name__ == "__main__":
    main()
