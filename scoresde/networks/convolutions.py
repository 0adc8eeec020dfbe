r"""Stacks of convolutions that halve or double height and width."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    r"""A residual block of two convolutions."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, size), nn.GroupNorm(8, out)
        self.conv1 = nn.Conv2d(size, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(size, out, 1) if size != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.skip(x) + h) * math.sqrt(0.5)  # type: ignore[no-any-return]


def _ends(size: int, out: int) -> list[nn.Module]:
    return [nn.GroupNorm(8, size), nn.SiLU(), nn.Conv2d(size, out, 3, padding=1)]


def halving(
    channels: int, out: int, width: int, multipliers: Sequence[int], blocks: int
) -> nn.Sequential:
    r"""Returns a network from images to feature maps, whose every level except the first halves both sides.

    Arguments:
        channels: The number of channels of the images.
        out: The number of channels of the feature maps.
        width: The number of channels of the first level, a multiple of 8.
        multipliers: The number of channels of each level, in multiples of `width`.
        blocks: The number of residual blocks of each level.
    """

    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    now = width
    for level, multiplier in enumerate(multipliers):
        if level:
            layers.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
        for _ in range(blocks):
            layers.append(Residual(now, width * multiplier))
            now = width * multiplier
    return nn.Sequential(*layers, *_ends(now, out))


def doubling(
    channels: int, out: int, width: int, multipliers: Sequence[int], blocks: int
) -> nn.Sequential:
    r"""Returns a network from feature maps to images, the mirror image of :func:`halving`.

    Arguments:
        channels: The number of channels of the feature maps.
        out: The number of channels of the images.
        width: The number of channels of the last level.
        multipliers: As for :func:`halving`.
        blocks: The number of residual blocks of each level.
    """

    now = width * multipliers[-1]
    layers: list[nn.Module] = [nn.Conv2d(channels, now, 3, padding=1)]
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks):
            layers.append(Residual(now, width * multiplier))
            now = width * multiplier
        if level:
            layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(now, now, 3, padding=1)]
    return nn.Sequential(*layers, *_ends(now, out))


def latent_shape(
    channels: int, size: int, latent: int, width: int, multipliers: Sequence[int], blocks: int
) -> tuple[int, int, int]:
    r"""Returns the shape of the latents of images, after checking the sizes of an autoencoder.

    Raises:
        ValueError: If a size is below 1, or the images cannot be halved so often.
    """

    sizes = {
        "channels": channels,
        "size": size,
        "latent": latent,
        "width": width,
        "blocks": blocks,
    }
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}.")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers must be positive, but are {tuple(multipliers)}.")
    if width % 8:
        raise ValueError(f"width must be a multiple of 8, but is {width}.")
    factor = 2 ** (len(multipliers) - 1)
    if size % factor:
        raise ValueError(
            f"size must be a multiple of {factor}, since {len(multipliers)} multipliers halve it "
            f"{len(multipliers) - 1} times, but is {size}."
        )
    return (latent, size // factor, size // factor)
