r"""A score model of natural images: 16 x 16 patches of two photographs."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..losses import denoising
from ..models.data_moments import moments
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..networks import UNet
from ..oracles.mixture import GaussianOracle
from ..processes.standard import EDM
from ..runs.progress import bar
from ..zoo import load, save
from .loop import Progress, train
from .patches_data import HELD_OUT, SIZE, patches

BATCH, STEPS, RATE = 64, 3000, 3e-3
CENTRE, SPREAD = 1.8, 1.4  # of the log-SNR: fine frequencies have little power
NETWORK = {"width": 24, "multipliers": [1, 2, 2], "blocks": 1}
KNOWN, TESTED = 20_000, 1024  # patches of which moments and losses are taken
SHOWN = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def train_patches(
    *, steps: int = STEPS, seed: int = 0, checkpoint: Path | None = None
) -> Iterator[tuple[Progress, NetworkScore]]:
    r"""Trains the model of patches, and yields the progress and the averaged model after each step.

    Arguments:
        steps: The number of steps.
        seed: The seed of weights, patches and noise.
        checkpoint: A file that stores the state, from which training resumes.
    """

    std = float(patches(KNOWN).square().mean().sqrt())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(**NETWORK)  # type: ignore[arg-type]
        model = _score(network, std)

        def loss(step: int) -> Tensor:
            key = seed * 1_000_003 + step
            draw = torch.Generator().manual_seed(key)
            log_snr = CENTRE + SPREAD * torch.randn(BATCH, generator=draw)
            z = torch.randn(BATCH, 1, SIZE, SIZE, generator=draw)
            return denoising(model, patches(BATCH, seed=key), log_snr, z).mean()

        for progress in train(network, loss, steps=steps, lr=RATE, checkpoint=checkpoint):
            yield progress, _score(progress.average, std)


def _score(network: torch.nn.Module, std: float) -> NetworkScore:
    return NetworkScore(network, EDM(), "edm", shape=(1, SIZE, SIZE), data_std=std)


def run(folder: Path, *, steps: int | None = None, seed: int = 0) -> list[Path]:
    r"""Trains the model with a progress bar, writes it, and measures the written model.

    Arguments:
        folder: The folder for `patches.json`, `patches.safetensors` and the checkpoint.
        steps: The number of steps.
        seed: The seed.

    Returns:
        A list with the path of the card.
    """

    folder.mkdir(parents=True, exist_ok=True)
    steps = steps or STEPS
    checkpoint = folder / "checkpoint.safetensors"
    with bar(total=steps, desc="train patches") as shown:
        for progress, average in train_patches(steps=steps, seed=seed, checkpoint=checkpoint):
            shown.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)
            shown.update(progress.step - shown.n)
            model = average
    card = {
        "name": "patches",
        "network": {"name": "UNet", "settings": NETWORK},
        "data": {
            "source": "random patches of the two photographs of scikit-learn's load_sample_images, "
            "by danielbuechele (china.jpg) and vultilion (flower.jpg)",
            "licence": "CC BY 2.0",
            "scale": "the mean of the colours, on [-1, 1]",
            "split": f"the right {HELD_OUT:.0%} of each photograph are held out",
        },
        "training": {
            "command": f"scoresde train patches --steps {steps} --seed {seed}",
            "batch": BATCH,
        },
    }
    model.moments = moments(patches(KNOWN))
    written = load(save(model, folder / "patches", card))
    card["metrics"] = evaluate(written)
    return [save(written, folder / "patches", card)]


@torch.no_grad()
def evaluate(model: ScoreModel) -> dict[str, dict[str, float]]:
    r"""Returns the error on held-out patches by noise level, relative to that of the best linear denoiser.

    The linear denoiser is that of the covariance of the training patches.
    """

    x = patches(TESTED, "test", seed=1).double()
    flat = patches(KNOWN).double().flatten(1)
    linear = GaussianOracle(flat.mean(0).reshape(1, SIZE, SIZE), flat.T.cov(), model.process)
    found = {}
    for level in SHOWN:
        draw = torch.Generator().manual_seed(0)
        noisy = x + level * torch.randn(x.shape, generator=draw, dtype=torch.float64)
        t = torch.tensor(model.process.at_noise_level(level), dtype=torch.float64)
        errors = [
            (one.denoise(state, t) - x).square().mean()
            for one, state in ((model, noisy.float()), (linear, noisy))
        ]
        found[f"noise level {level:g}"] = round(float(errors[0] / errors[1]), 4)
    return {"squared error over that of the best linear denoiser": found}
