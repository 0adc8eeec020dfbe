r"""The classifiers of digits that are part of this package: for clean images, and for any noise."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import Json
from ..guidance.noisy_classifier import Classifier
from ..likelihood import dequantize
from ..networks import Encoder
from ..processes.standard import EDM
from ..runs.progress import bar
from ..zoo import load_classifier, save_classifier
from .digits_data import CLASSES, LEVELS, digits
from .loop import Progress, train

BATCH, STEPS, RATE = 256, 1500, 4e-3
LEAST, MOST, CLEAN = (
    0.02,
    80.0,
    0.3,
)  # noise levels: the range of training, and its end for clean images
NETWORK = {"width": 24, "multipliers": [1, 2, 3], "size": 8, "classes": CLASSES, "dropout": 0.2}
SHOWN = (0.02, 0.5, 1.0, 2.0, 4.0, 8.0)


def train_classifier(
    noisy: bool, *, steps: int = STEPS, seed: int = 0
) -> Iterator[tuple[Progress, Classifier]]:
    r"""Trains a classifier of digits, and yields the progress and the averaged classifier after each step.

    Arguments:
        noisy: Whether it is trained on all noise levels, evenly on a logarithmic scale, or on hardly visible
            noise.
        steps: The number of steps.
        seed: The seed of weights, batches and noise.
    """

    images, labels = digits("train")
    std = float(images.square().mean().sqrt())
    process, levels = EDM(), (LEAST, MOST if noisy else LEAST)
    highest = MOST if noisy else CLEAN

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Encoder(**NETWORK)  # type: ignore[arg-type]
        classifier = Classifier(network, process, data_std=std, levels=levels)

        def loss(step: int) -> Tensor:
            draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
            torch.manual_seed(seed * 1_000_003 + step)  # for dropout
            index = torch.randint(len(images), (BATCH,), generator=draw)
            x = dequantize(images[index], levels=LEVELS, seed=step, first_index=seed << 32)
            share = torch.rand(BATCH, generator=draw, dtype=torch.float64)
            t = process.time(-(LEAST * (highest / LEAST) ** share).log())
            z = torch.randn(x.shape, generator=draw)
            return F.nll_loss(classifier(process.perturb(x, t, z).to(x), t), labels[index])

        for progress in train(network, loss, steps=steps, lr=RATE):
            yield progress, Classifier(progress.average, process, data_std=std, levels=levels)


def run(folder: Path, *, steps: int | None = None, seed: int = 0) -> list[Path]:
    r"""Trains both classifiers with a progress bar, writes them, and measures the written ones.

    Arguments:
        folder: The folder for `digits` and `digits_noisy`.
        steps: The number of steps.
        seed: The seed.

    Returns:
        The paths of the cards.
    """

    cards, steps = [], steps or STEPS
    for name, noisy in (("digits", False), ("digits_noisy", True)):
        for _progress, classifier in bar(
            train_classifier(noisy, steps=steps, seed=seed), total=steps, desc=f"train {name}"
        ):
            average = classifier
        card: Json = {
            "name": name,
            "network": {"name": "Encoder", "settings": NETWORK},
            "training": {
                "command": f"scoresde train digits_classifier --steps {steps} --seed {seed}"
            },
        }
        file = save_classifier(average, folder / name, card)
        card["metrics"] = evaluate(load_classifier(file))
        cards.append(save_classifier(load_classifier(file), folder / name, card))
    return cards


def evaluate(classifier: Classifier, repeats: int = 10) -> dict[str, dict[str, float]]:
    r"""Returns the accuracy and the mean log-probability on held-out digits, by noise level."""

    test, process = digits("test"), classifier.process
    x, labels = (part.repeat(repeats, *(1,) * (part.ndim - 1)) for part in test)
    figures: dict[str, dict[str, float]] = {"named rightly": {}, "log-probability": {}}
    for level in SHOWN:
        t = torch.tensor(process.at_noise_level(level), dtype=torch.float64)
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = classifier(process.perturb(x, t, z).to(x), t)
        right = found.gather(1, labels[:, None]).mean()
        key = f"noise level {level:g}"
        figures["named rightly"][key] = round(
            (found.argmax(1) == labels).double().mean().item(), 4
        )
        figures["log-probability"][key] = round(right.item(), 4)
    return figures
