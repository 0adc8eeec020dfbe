r"""A score model in the latent space of a VAE and of a VQ-VAE, against the embedded model of pixels: digits.

    python -m benchmarks.latent_models

The models are trained first, for about three minutes each, and kept in `runs/latent_models`.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import autoencoders, losses, metrics, plots
from scoresde.likelihood.bits import bin_width, code_length
from scoresde.networks import VAE, VQVAE, UNet
from scoresde.training.digits_data import LEVELS, digits
from scoresde.training.loop import train

from .gallery import PICTURES
from .report import save

FOLDER = Path("runs") / "latent_models"
KINDS: dict[str, Callable[[], nn.Module]] = {
    "VAE": lambda: VAE(latent=2, width=16),
    "VQ-VAE": lambda: VQVAE(latent=3, codes=64, width=16),
}
UNET = {"width": 24, "multipliers": [1, 2], "dropout": 0.1}
STEPS, BATCH, RATE = {"autoencoder": 2500, "score": 2500}, 64, 3e-3
SAMPLES, SHOWN, DRAWS = 2000, 24, 4
SOLVED = {"solver": "dpmpp_2m", "steps": 12, "seed": 1}


def latents(coder: nn.Module, space: ss.Latent, x: Tensor, seed: int) -> Tensor:
    r"""Returns states of data, drawn from the posterior if there is one."""

    if isinstance(coder, VQVAE):
        return space.inside("x", x)
    mean, std = space.posterior("x", x)
    return mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))


def trained(kind: str) -> ss.ScoreModel:
    r"""Returns a latent model, trained unless it is there already."""

    file = FOLDER / kind
    if file.with_suffix(".json").exists():
        return ss.load(file)
    FOLDER.mkdir(parents=True, exist_ok=True)
    images = digits("train").images
    torch.manual_seed(0)
    coder = autoencoders.fit_autoencoder(
        KINDS[kind](), images, levels=LEVELS, steps=STEPS["autoencoder"], batch_size=BATCH, lr=RATE
    )
    space = ss.Latent.of(coder, ss.dequantize(images, levels=LEVELS))
    network = UNet(channels=space.shape[0], **UNET)
    model = ss.NetworkScore(network, ss.EDM(), "edm", shape=space.shape, data_std=1.0)

    def loss(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        torch.manual_seed(step)  # for dropout
        rows = images[torch.randint(len(images), (BATCH,), generator=draw)]
        u = latents(coder, space, ss.dequantize(rows, levels=LEVELS, seed=step), step)
        log_snr = 0.8 + 1.4 * torch.randn(BATCH, generator=draw)
        z = torch.randn(u.shape, generator=draw)
        return losses.denoising(model, u, log_snr, z, weight="edm").mean()

    for progress in train(network, loss, steps=STEPS["score"], lr=RATE):
        average = progress.average
    network.load_state_dict(average.state_dict())
    model.eval().transform = space
    card = {"network": {"name": "UNet", "settings": {"channels": space.shape[0], **UNET}},
            "training": {"steps": STEPS, "batch": BATCH}}  # fmt: skip
    ss.save(model, file, card, dtype=torch.float32)
    return ss.load(file)


def distance(x: Tensor, test: Tensor) -> dict:
    value, error = metrics.with_error(metrics.energy_distance, x, test)
    return {"energy distance x 1000": 1000 * value, "its error": 1000 * error}


def bits(values: Tensor) -> dict:
    return {
        "bits/dim": values.mean().item(),
        "standard error": values.std().item() / len(values) ** 0.5,
    }


def standard(space: ss.Latent) -> ss.ScoreModel:
    r"""Returns the standard normal prior of a VAE, as a model of its latents."""

    model = ss.GaussianOracle(-space.mean / space.std, torch.diag(space.std.flatten() ** -2))
    model.transform = space
    return model


def reconstructed(space: ss.Latent, test: Tensor) -> Tensor:
    return space.outside(space.inside("x", test))


def of_latents(kind: str, test: Tensor, noisy: Tensor) -> list[dict]:
    model = trained(kind)
    space = model.transform
    again = reconstructed(space, test)
    x = ss.sample(model, SAMPLES, **SOLVED).x
    rows = [{"model": f"reconstructions by the {kind}",
             "squared error": (again - test).square().mean().item()},
            {"model": f"score model in the latents of the {kind}", "dimensions": math.prod(space.shape),
             **distance(x, test)}]  # fmt: skip
    if kind == "VAE":
        bound = autoencoders.pixel_elbo(model, noisy, draws=DRAWS, by="elbo")
        rows[1] |= bits(bound.bits_per_dim(levels=LEVELS))
        plain = standard(space)
        y = ss.sample(plain, SAMPLES, **SOLVED).x
        prior = autoencoders.pixel_elbo(plain, noisy, draws=DRAWS, by="elbo")
        rows.append({"model": f"{kind} with its normal prior", "dimensions": math.prod(space.shape),
                     **distance(y, test), **bits(prior.bits_per_dim(levels=LEVELS))})  # fmt: skip
    return rows


def picture() -> None:
    r"""Held-out digits, and samples of each model."""

    test = digits("test").images[:SHOWN]
    shown = {
        "held-out digits": test,
        "score model of pixels": ss.sample(ss.load("digits"), SHOWN, **SOLVED).x,
    }
    for kind in KINDS:
        model = trained(kind)
        space = model.transform
        shown[f"{kind}: reconstructions"] = reconstructed(space, test)
        shown[f"score model in its latents ({kind})"] = ss.sample(model, SHOWN, **SOLVED).x
        if kind == "VAE":
            shown[f"normal prior ({kind})"] = ss.sample(standard(space), SHOWN, **SOLVED).x
    plots.images(PICTURES / "latent_models.png", shown, columns=12, across=2)


def main() -> None:
    torch.set_num_threads(1)
    for kind in KINDS:
        trained(kind)
    test = digits("test").images
    noisy = ss.dequantize(test, levels=LEVELS)
    pixels = ss.load("digits")
    x = ss.sample(pixels, SAMPLES, **SOLVED).x
    bound = ss.elbo(pixels, noisy, batch_size=180).nats
    rows = [{"model": "score model of pixels", "dimensions": 64, **distance(x, test),
             **bits(code_length(bound, 64, bin_width(LEVELS, -1.0, 1.0)))}]  # fmt: skip
    for kind in KINDS:
        rows += of_latents(kind, test, noisy)
    columns = dict.fromkeys(("model", "dimensions", *(name for row in rows for name in row)))
    save("latent_models", [{name: row.get(name) for name in columns} for row in rows])
    picture()


if __name__ == "__main__":
    main()
