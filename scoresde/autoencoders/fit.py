r"""Training of small autoencoders."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.doors.values import Array

from ..doors.amounts import positive
from ..doors.data import as_seed
from ..likelihood import dequantize
from ..models.checks import check_count
from ..networks import VAE, VQVAE
from ..runs.progress import bar
from ..training.loop import train
from .losses import as_images, quantization_loss, variational_loss

A = TypeVar("A", bound=nn.Module)
Loss = Callable[[Any, Tensor, int], Tensor]  # of an autoencoder, a batch and a seed
SPREAD = 1_000_003  # between the seeds of runs


@checked
def fit_autoencoder(
    autoencoder: A,
    data: Array,
    *,
    loss: Loss | None = None,
    levels: int | None = None,
    steps: int = 2000,
    batch_size: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    progress: bool = False,
) -> A:
    r"""Trains an autoencoder, and returns it with the moving average of its weights, in evaluation mode.

    Arguments:
        autoencoder: The autoencoder, which is trained in place. The codebook of a
            :class:`scoresde.networks.VQVAE` starts at encodings of data.
        data: Data, with shape (M, \*).
        loss: A function of the autoencoder, a batch and a seed that returns a loss per sample. By default,
            :func:`variational_loss` or :func:`quantization_loss`.
        levels: The number of levels from -1 to 1 on which the data lies. Each batch then gets uniform noise of
            one bin width.
        steps: The number of steps.
        batch_size: The number of samples of a step.
        lr: The maximum learning rate.
        seed: The seed of batches and draws.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: If there is no default loss for this autoencoder.
        ValueError: If data are not on the levels.
        TrainingError: If a loss is not finite.

    Examples:
        >>> vae = ss.networks.VAE(width=8)
        >>> fitted = ss.autoencoders.fit_autoencoder(vae, torch.zeros(16, 1, 8, 8), steps=2, batch_size=4)
        >>> fitted.training
        False
    """

    if not isinstance(autoencoder, nn.Module):
        raise TypeError(f"autoencoder must be a module, but is a {type(autoencoder).__name__}.")
    x, seed = as_images("data", data, autoencoder), as_seed("seed", seed)
    steps, batch_size = (
        check_count(name, value, at_least=1)
        for name, value in (("steps", steps), ("batch_size", batch_size))
    )
    rate = positive("lr", lr)
    measure = _loss_of(autoencoder) if loss is None else loss
    if levels is not None:
        dequantize(x[:1], levels=levels)  # raises

    def batch(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(seed * SPREAD + step)
        rows = x[torch.randint(len(x), (batch_size,), generator=draws)]
        return (
            rows if levels is None else dequantize(rows, levels=levels, seed=seed * SPREAD + step)
        )

    def of_step(step: int) -> Tensor:
        value = measure(autoencoder, batch(step), seed * SPREAD + step)
        return _mean(value, batch_size)

    if isinstance(autoencoder, VQVAE):
        _start(autoencoder, batch(-1), seed)
    with bar(total=steps, desc="train the autoencoder", shown=progress) as shown:
        for found in train(autoencoder, of_step, steps=steps, lr=rate):
            shown.set_postfix(loss=f"{found.loss:.4g}", refresh=False)
            shown.update(found.step - shown.n)
    autoencoder.load_state_dict(found.average.state_dict())
    return autoencoder.eval()


def _mean(value: object, count: int) -> Tensor:
    r"""The mean of the losses of a step, after checking that there is one per sample."""

    if not isinstance(value, Tensor) or value.shape != (count,):
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"loss must return a tensor with shape ({count},), but returned {given}.")
    return value.mean()


def _loss_of(autoencoder: nn.Module) -> Loss:
    if isinstance(autoencoder, VAE):
        return lambda a, x, seed: variational_loss(a, x, seed=seed)
    if isinstance(autoencoder, VQVAE):
        return lambda a, x, seed: quantization_loss(a, x)
    raise TypeError(
        f"loss= must be passed, since a {type(autoencoder).__name__} has no loss of its own: a function of the "
        "autoencoder, a batch and a seed that returns a loss per sample."
    )


@torch.no_grad()
def _start(autoencoder: VQVAE, x: Tensor, seed: int) -> None:
    r"""Sets the codebook to encodings of data, so that none of its vectors is far from all of them."""

    vectors = autoencoder.features(x).movedim(1, -1).flatten(0, -2)
    draws = torch.Generator().manual_seed(seed)
    autoencoder.codebook.copy_(
        vectors[torch.randint(len(vectors), autoencoder.codebook.shape[:1], generator=draws)]
    )
