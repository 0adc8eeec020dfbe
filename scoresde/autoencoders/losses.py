r"""Losses of autoencoders, each per sample."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.noise.brownian import DATA_NOISE, keyed_normal

from ..doors.amounts import positive
from ..doors.data import as_data, as_seed
from ..losses.noised import mean_square
from ..networks import VQVAE


@runtime_checkable
class Variational(Protocol):
    r"""An autoencoder with a normal posterior of latents, and a density of data given its latent."""

    def posterior(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        r"""Returns the mean and the standard deviation of latents."""

    def log_prob(self, x: Tensor, z: Tensor, /) -> Tensor:
        r"""Returns the log-density of data given its latent in nats, with shape (B,)."""


@checked
def variational_loss(
    autoencoder: Variational,
    x: Tensor,
    *,
    weight: float = 1.0,
    seed: int = 0,
    first_index: int = 0,
) -> Tensor:
    r"""Returns the negative evidence lower bound of data under a standard normal prior in nats, with shape (B,),

    .. math:: - \log p(x \mid z) + w \, \mathrm{KL} \big( q(z \mid x) \,\|\, \mathcal{N}(0, I) \big) ,
        \qquad \mathrm{KL} = \tfrac{1}{2} \sum \big( m^2 + v - \log v - 1 \big) ,

    with one draw :math:`z = m + \sqrt{v} \, \epsilon`.

    Arguments:
        autoencoder: The autoencoder, with `posterior` and `log_prob`, such as a :class:`scoresde.networks.VAE`.
        x: Data, with shape (B, \*).
        weight: The weight w of the divergence; a small one leaves the latents to a score model as their prior.
        seed: The seed of the draws. Row i depends on the seed and on `first_index + i` alone.
        first_index: The index of the first sample.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), equation (10) and appendix B
        | https://arxiv.org/abs/1312.6114

    Examples:
        >>> from scoresde.networks import VAE
        >>> ss.autoencoders.variational_loss(VAE(width=8), torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3])
    """

    x, weight = as_images("x", x, autoencoder), positive("weight", weight, zero=True)
    mean, std = autoencoder.posterior(x)
    z = mean + std * draw(mean, as_seed("seed", seed), first_index)
    divergence = (mean.square() + std.square() - 2 * std.log() - 1) / 2
    return weight * divergence.flatten(1).sum(1) - autoencoder.log_prob(x, z)


@checked
def quantization_loss(autoencoder: VQVAE, x: Tensor, *, commitment: float = 0.25) -> Tensor:
    r"""Returns the loss of an autoencoder with a codebook, with shape (B,),

    .. math:: |x - D(z + \mathrm{sg}[e - z])|^2 + |\mathrm{sg}[z] - e|^2 + \beta \, |z - \mathrm{sg}[e]|^2 ,

    each a mean over the entries, where sg stops the gradient and e is the nearest vector of the codebook.

    Arguments:
        autoencoder: The autoencoder.
        x: Images, with shape (B, C, H, W).
        commitment: The weight :math:`\beta` of the part that keeps encodings near the codebook.

    References:
        | Neural Discrete Representation Learning (van den Oord et al., 2017), equation (3)
        | https://arxiv.org/abs/1711.00937

    Examples:
        >>> from scoresde.networks import VQVAE
        >>> ss.autoencoders.quantization_loss(VQVAE(width=8), torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3])
    """

    x, commitment = as_images("x", x, autoencoder), positive("commitment", commitment, zero=True)
    z = autoencoder.features(x)
    chosen = autoencoder.quantize(z)
    book = mean_square(z.detach() - chosen)
    committed = mean_square(z - chosen.detach())
    return mean_square(x - autoencoder.decode(z)) + book + commitment * committed


def as_images(name: str, x: object, autoencoder: object) -> Tensor:
    r"""Returns data with shape (B, \*), after checking that it has the shape that an autoencoder states.

    Raises:
        ValueError: If its samples have another shape, or are not finite.
    """

    data, shape = as_data(name, x), getattr(autoencoder, "shape", None)
    if shape is not None and tuple(data.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} must be (B, {', '.join(map(str, shape))}) for this autoencoder, but its samples have shape "
            f"{tuple(data.shape[1:])}."
        )
    return data


def draw(like: Tensor, seed: int, first_index: int = 0, counter: int = 0) -> Tensor:
    r"""Returns standard noise like a tensor with shape (B, \*), keyed by the seed and the index of each row."""

    index = torch.arange(len(like), device=like.device) + first_index
    z = keyed_normal(seed, index, DATA_NOISE, counter, like[0].numel())
    return z.reshape(like.shape).to(like)
