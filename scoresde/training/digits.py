r"""The score model of digits that is part of this package.

It is trained on uniformly dequantised images, with their labels four times out of five.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..losses.levels import LogNormal
from ..zoo import save
from ..zoo.files import load_card
from .digits_data import CLASSES, LEVELS, digits
from .evaluate import evaluate
from .result import Trained
from .verb import train

STEPS, ENTRIES = 2000, 10
NETWORK = {"width": 40, "multipliers": [1, 2], "blocks": 2, "classes": CLASSES, "dropout": 0.1}
RECIPE: dict[str, Any] = {
    "batch_size": 128,
    "lr": 4e-3,
    "dropped": 0.2,
    "levels": LogNormal(-1.7, 1.2),
    "bins": LEVELS,
}
DATA = {
    "source": "scikit-learn's load_digits: the test part of UCI's Optical Recognition of "
    "Handwritten Digits (Alpaydin and Kaynak, 1998)",
    "licence": "CC BY 4.0",
    "scale": "x = level / 8 - 1, levels 0 to 16, uniformly dequantised",
    "split": "train_test_split(test_size=0.2, stratify=labels, random_state=0)",
}


def train_digits(
    *, steps: int = STEPS, seed: int = 0, out: Path | None = None, progress: bool = False
) -> Trained:
    r"""Trains the digits model, whose loss on the held-out digits is in the history.

    Arguments:
        steps: The number of steps.
        seed: The seed of weights, batches and noise.
        out: The folder, from whose checkpoint an interrupted training goes on.
        progress: Whether to show a progress bar.
    """

    images, labels = digits("train")
    held, theirs = digits("test")
    return train(
        "UNet",
        {"x": images, "label": labels},
        validation={"x": held, "label": theirs},
        settings=NETWORK,
        steps=steps,
        every=max(1, steps // ENTRIES),
        snapshots=0,
        seed=seed,
        out=out,
        name="digits",
        assessed=False,
        device=torch.device("cpu"),
        progress=progress,
        **RECIPE,
    )


def run(folder: Path, *, steps: int | None = None, seed: int = 0) -> list[Path]:
    r"""Trains the model with a progress bar, writes it, and measures the written model.

    Arguments:
        folder: The folder for `digits.json`, `digits.safetensors` and the checkpoint.
        steps: The number of steps.
        seed: The seed.

    Returns:
        A list with the path of the card.
    """

    trained = train_digits(steps=steps or STEPS, seed=seed, out=folder, progress=True)
    card = {**trained.card, "data": {**trained.card["data"], **DATA}}
    file = save(trained.model, folder / "digits", card)
    tqdm.write("measuring the model that was written, which takes minutes", file=sys.stderr)
    card = {**load_card(file).card, "metrics": evaluate(load_card(file))}
    return [save(load_card(file), folder / "digits", card)]
