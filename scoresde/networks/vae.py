r"""A small variational autoencoder of images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .convolutions import doubling, halving, latent_shape

NARROW, WIDE = -9.0, 4.0  # logarithms of the variances of latents, at least and at most


class VAE(nn.Module):
    r"""Creates a variational autoencoder of images,

    .. math:: q(z \mid x) = \mathcal{N}(m(x), \mathrm{diag} \, v(x)) , \qquad
        p(x \mid z) = \mathcal{N}(D(z), s^2 I) ,

    with one learned deviation s of the pixels.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
        | Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2021), for s
        | https://arxiv.org/abs/2006.13202

    Arguments:
        channels: The number of channels of the images.
        size: The height and width of the images.
        latent: The number of channels of the latents.
        width: The number of channels of the first level, a multiple of 8.
        multipliers: The number of channels of each level, in multiples of `width`. Every level except the first
            halves height and width.
        blocks: The number of residual blocks of each level.

    Attributes:
        shape: The shape of one image.
        latent_shape: The shape of its latent.
        settings: The arguments by which it was made.

    Examples:
        >>> from scoresde.networks import VAE
        >>> vae = VAE(size=8, latent=2, width=16)
        >>> z = vae.encode(torch.zeros(3, 1, 8, 8))
        >>> z.shape, vae.decode(z).shape
        (torch.Size([3, 2, 4, 4]), torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 8,
        latent: int = 2,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.settings = {
            **{"channels": channels, "size": size, "latent": latent, "width": width},
            **{"multipliers": list(multipliers), "blocks": blocks},
        }
        self.shape = (channels, size, size)
        self.latent_shape = latent_shape(channels, size, latent, width, multipliers, blocks)
        self.encoder = halving(channels, 2 * latent, width, multipliers, blocks)
        self.decoder = doubling(latent, channels, width, multipliers, blocks)
        self.log_std = nn.Parameter(torch.tensor(math.log(0.3)))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the mean and the standard deviation of the latents of images, each like the latents.

        Arguments:
            x: Images, with shape (B, C, H, W).
        """

        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, (log_variance.clamp(NARROW, WIDE) / 2).exp()

    def encode(self, x: Tensor) -> Tensor:
        r"""Returns the means of the latents of images.

        Arguments:
            x: Images, with shape (B, C, H, W).
        """

        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        r"""Returns the mean images of latents.

        Arguments:
            z: Latents, with shape (B, \*latent_shape).
        """

        return self.decoder(z)  # type: ignore[no-any-return]

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        r"""Returns :math:`\log p(x \mid z)` in nats, with shape (B,).

        Arguments:
            x: Images, with shape (B, C, H, W).
            z: Latents, with shape (B, \*latent_shape).
        """

        pixels = torch.distributions.Normal(
            self.decode(z), self.log_std.exp(), validate_args=False
        )
        return pixels.log_prob(x).flatten(1).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        r"""Returns the reconstructions of images from the means of their latents."""

        return self.decode(self.encode(x))
