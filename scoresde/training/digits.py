r"""The score model of digits that is part of this package.

It is trained on uniformly dequantised images, with their labels four times out of five.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from ..likelihood import dequantize
from ..losses import denoising
from ..models.data_moments import moments
from ..models.network import NetworkScore
from ..networks import UNet
from ..processes.standard import EDM
from ..runs.progress import bar
from ..zoo import save
from ..zoo.files import load_card
from .digits_data import CLASSES, LEVELS, digits
from .evaluate import evaluate
from .loop import Progress, train

BATCH, STEPS, DROPPED, RATE = 128, 2000, 0.2, 4e-3
NETWORK = {"width": 40, "multipliers": [1, 2], "blocks": 2, "classes": CLASSES, "dropout": 0.1}


def train_digits(
    *, steps: int = STEPS, seed: int = 0, checkpoint: Path | None = None
) -> Iterator[tuple[Progress, NetworkScore]]:
    r"""Trains the digits model, and yields the progress and the averaged model after each step.

    Arguments:
        steps: The number of steps.
        seed: The seed of weights, batches and noise.
        checkpoint: A file that stores the state, from which training resumes.
    """

    images, labels = digits("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(**NETWORK)  # type: ignore[arg-type]
        std = float(images.square().mean().sqrt())
        model = _score(network, std)

        def loss(step: int) -> Tensor:
            draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
            torch.manual_seed(seed * 1_000_003 + step)  # for dropout, so that a resumed run agrees
            index = torch.randint(len(images), (BATCH,), generator=draw)
            x = dequantize(images[index], levels=LEVELS, seed=step, first_index=seed << 32)
            log_snr = 1.7 + 1.2 * torch.randn(BATCH, generator=draw)
            z = torch.randn(x.shape, generator=draw)
            dropped = torch.rand(BATCH, generator=draw) < DROPPED
            label = torch.where(dropped, CLASSES, labels[index])
            return denoising(model, x, log_snr, z, label=label).mean()

        for progress in train(network, loss, steps=steps, lr=RATE, checkpoint=checkpoint):
            yield progress, _score(progress.average, std)


def _score(network: torch.nn.Module, std: float) -> NetworkScore:
    return NetworkScore(
        network, EDM(), "edm", conditions=("label",), shape=(1, 8, 8), data_std=std
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

    folder.mkdir(parents=True, exist_ok=True)
    steps = steps or STEPS
    with bar(total=steps, desc="train digits") as shown:
        checkpoint = folder / "checkpoint.safetensors"
        for progress, _ in train_digits(steps=steps, seed=seed, checkpoint=checkpoint):
            shown.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            shown.update(progress.step - shown.n)
    model = finished(checkpoint)
    card = {
        "name": "digits",
        "network": {"name": "UNet", "settings": NETWORK},
        "data": {
            "source": "scikit-learn's load_digits: the test part of UCI's Optical Recognition of "
            "Handwritten Digits (Alpaydin and Kaynak, 1998)",
            "licence": "CC BY 4.0",
            "scale": "x = level / 8 - 1, levels 0 to 16, uniformly dequantised",
            "split": "train_test_split(test_size=0.2, stratify=labels, random_state=0)",
        },
        "training": {
            "command": f"scoresde train digits --steps {steps} --seed {seed}",
            "batch": BATCH,
            "label dropout": DROPPED,
        },
    }
    file = save(model, folder / "digits", card)
    tqdm.write("measuring the model that was written, which takes minutes", file=sys.stderr)
    card = {**load_card(file).card, "metrics": evaluate(load_card(file))}
    return [save(load_card(file), folder / "digits", card)]


def finished(checkpoint: Path) -> NetworkScore:
    r"""Returns the averaged model of a checkpoint."""

    network = UNet(**NETWORK)  # type: ignore[arg-type]
    tensors = load_file(checkpoint)
    network.load_state_dict(
        {name[5:]: value for name, value in tensors.items() if name.startswith("mean.")}
    )
    images = digits("train").images
    model = _score(network.eval(), float(images.square().mean().sqrt()))
    model.moments = moments(dequantize(images, levels=LEVELS))
    return model
