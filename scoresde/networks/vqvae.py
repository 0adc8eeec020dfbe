r"""A small autoencoder of images whose latents are vectors of a codebook."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from .convolutions import doubling, halving, latent_shape


class VQVAE(nn.Module):
    r"""Creates an autoencoder of images with a quantised latent space.

    Each position of the latent is the nearest vector of a codebook. Gradients pass the quantiser straight through:
    :meth:`quantize` with `straight` returns :math:`z + \mathrm{sg}[e_k - z]`. :meth:`decode` quantises first, so
    that continuous latents, such as samples of a score model, give images of the codebook.

    References:
        | Neural Discrete Representation Learning (van den Oord et al., 2017), section 3
        | https://arxiv.org/abs/1711.00937

    Arguments:
        channels: The number of channels of the images.
        size: The height and width of the images.
        codes: The number of vectors of the codebook.
        latent: The number of their entries.
        width: The number of channels of the first level, a multiple of 8.
        multipliers: The number of channels of each level, in multiples of `width`. Every level except the first
            halves height and width.
        blocks: The number of residual blocks of each level.

    Attributes:
        shape: The shape of one image.
        latent_shape: The shape of its latent.
        settings: The arguments by which it was made.
        quantized: True: its latents lie on points, and have no density.

    Examples:
        >>> from scoresde.networks import VQVAE
        >>> vqvae = VQVAE(size=8, codes=16, latent=3, width=16)
        >>> z = vqvae.encode(torch.zeros(2, 1, 8, 8))
        >>> z.shape, vqvae.nearest(z).shape, bool((vqvae.quantize(z) == z).all())
        (torch.Size([2, 3, 4, 4]), torch.Size([2, 4, 4]), True)
    """

    quantized: ClassVar[bool] = True

    def __init__(
        self,
        channels: int = 1,
        size: int = 8,
        codes: int = 64,
        latent: int = 4,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if codes < 2:
            raise ValueError(f"codes must be at least 2, but is {codes}.")
        self.settings = {
            **{"channels": channels, "size": size, "codes": codes, "latent": latent},
            **{"width": width, "multipliers": list(multipliers), "blocks": blocks},
        }
        self.shape = (channels, size, size)
        self.latent_shape = latent_shape(channels, size, latent, width, multipliers, blocks)
        self.encoder = halving(channels, latent, width, multipliers, blocks)
        self.decoder = doubling(latent, channels, width, multipliers, blocks)
        self.codebook = nn.Parameter(torch.randn(codes, latent) / math.sqrt(latent))

    def features(self, x: Tensor) -> Tensor:
        r"""Returns the latents of images before quantisation, with shape (B, \*latent_shape).

        Arguments:
            x: Images, with shape (B, C, H, W).
        """

        return self.encoder(x)  # type: ignore[no-any-return]

    def nearest(self, z: Tensor) -> Tensor:
        r"""Returns the indices of the nearest vectors of the codebook, with shape (B, h, w).

        Arguments:
            z: Latents, with shape (B, \*latent_shape).
        """

        vectors, book = z.detach().movedim(1, -1), self.codebook.detach().to(z)
        return torch.cdist(vectors.flatten(0, -2), book).argmin(1).reshape(vectors.shape[:-1])

    def quantize(self, z: Tensor, *, straight: bool = False) -> Tensor:
        r"""Returns the nearest vectors of the codebook, with shape (B, \*latent_shape).

        Arguments:
            z: Latents, with shape (B, \*latent_shape).
            straight: Whether gradients pass to the latents as if nothing had been quantised, instead of to the
                codebook.
        """

        chosen = self.codebook[self.nearest(z)].movedim(-1, 1).to(z)
        return z + (chosen - z).detach() if straight else chosen

    def encode(self, x: Tensor) -> Tensor:
        r"""Returns the quantised latents of images.

        Arguments:
            x: Images, with shape (B, C, H, W).
        """

        return self.quantize(self.features(x))

    def decode(self, z: Tensor) -> Tensor:
        r"""Returns the images of latents, which are quantised first, with gradients straight through.

        Arguments:
            z: Latents, with shape (B, \*latent_shape).
        """

        return self.decoder(self.quantize(z, straight=True))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        r"""Returns the reconstructions of images."""

        return self.decode(self.features(x))
