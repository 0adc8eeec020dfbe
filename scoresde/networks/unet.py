r"""A small U-Net."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solvers.doors.signatures import checked

from .inputs import (
    check_dropout,
    check_input,
    check_multiple,
    check_settings,
    embedded,
    with_estimate,
)

NORMED = 8  # groups of the features that are normalised together


@checked
class UNet(nn.Module):
    r"""Creates a U-Net for images, with residual blocks that are modulated by the time and the label.

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B
        | https://arxiv.org/abs/2006.11239
        | Analog Bits (Chen et al., 2023), section 2.2, for self-conditioning
        | https://arxiv.org/abs/2208.04202

    Arguments:
        channels: The number of channels of the images.
        width: The number of channels of the first level; those of every level are multiples of 8.
        multipliers: The number of channels of each level, in multiples of `width`. Every level except the first
            halves height and width.
        blocks: The number of residual blocks of each level, on the way down.
        classes: The number of labels, or 0 for none.
        dropout: The probability of dropping a feature in training.
        self_conditioning: Whether it takes its last estimate of the data.

    Examples:
        >>> from scoresde.networks import UNet
        >>> UNet(width=16)(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        classes: int = 0,
        dropout: float = 0.0,
        self_conditioning: bool = False,
    ) -> None:
        super().__init__()
        _check(channels, width, multipliers, blocks, classes, dropout)
        self.channels, self.halvings = channels, len(multipliers) - 1
        self.self_conditioning = self_conditioning
        features = 2 * width
        self.frequencies = nn.Buffer(frequencies(width // 2))
        self.label = nn.Embedding(classes + 1, features) if classes else None
        self.time = nn.Sequential(
            nn.Linear(2 * (width // 2), features), nn.SiLU(), nn.Linear(features, features)
        )
        self.first = nn.Conv2d((1 + self_conditioning) * channels, width, 3, padding=1)
        widths, size = [width], width
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            if level:
                self.down.append(Halve(size))
                widths.append(size)
            for _ in range(blocks):
                self.down.append(Block(size, width * multiplier, features, dropout))
                size = width * multiplier
                widths.append(size)
        self.middle = nn.ModuleList(
            [
                Block(size, size, features, dropout),
                Attention(size),
                Block(size, size, features, dropout),
            ]
        )
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(Block(size + widths.pop(), width * multiplier, features, dropout))
                size = width * multiplier
            if level:
                self.up.append(Double(size))
        self.last = nn.Sequential(
            nn.GroupNorm(NORMED, size), nn.SiLU(), nn.Conv2d(size, channels, 3, padding=1)
        )
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        r"""Returns the output, a tensor like `x`.

        Arguments:
            x: Images, with shape (B, C, H, W).
            t: A number for the noise level, with shape (B,).
            label: The labels, with shape (B,), where `classes` stands for no label.
            estimate: With self-conditioning, the last estimate of the data, like `x`. By default, 0.
        """

        self._check_image(x)
        features = self.time(waves(t, self.frequencies).to(x.dtype))
        if self.label is not None or label is not None:
            features = features + embedded(self.label, label, x)
        features = F.silu(features)
        h, skips = self.first(with_estimate(self, x, estimate, self.self_conditioning)), []
        skips.append(h)
        for module in self.down:
            h = module(h, features)
            skips.append(h)
        for module in self.middle:
            h = module(h, features)
        for module in self.up:
            h = module(
                torch.cat([h, skips.pop()], dim=1) if isinstance(module, Block) else h, features
            )
        return self.last(h)  # type: ignore[no-any-return]

    def _check_image(self, x: Tensor) -> None:
        check_input(self, x, (self.channels, "H", "W"))
        even = 2**self.halvings
        if x.shape[2] % even or x.shape[3] % even:
            raise ValueError(
                f"x must have a height and width that are multiples of {even}, for {self.halvings} halvings, "
                f"but has {x.shape[2]} and {x.shape[3]}; pad it, or pass fewer multipliers to UNet."
            )


def _check(
    channels: int,
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    classes: int,
    dropout: float,
) -> None:
    r"""Refuses settings of which no network can be made."""

    check_settings(1, channels=channels)
    check_settings(0, blocks=blocks, classes=classes)
    check_dropout(dropout)
    if not multipliers:
        raise ValueError("multipliers must hold one number for each level, but are empty.")
    for multiplier in (1, *multipliers):
        check_settings(1, multipliers=multiplier)
        words = f"width * {multiplier}"
        check_multiple(words, width * multiplier, NORMED, "the groups of its norms")


def frequencies(count: int, last: float = 100.0) -> Tensor:
    r"""Returns frequencies from 1 to the last one, in equal ratios, with shape (count,)."""

    # computed on the CPU, since torch.linspace on the device "meta" imports the compiler, which takes seconds
    even = torch.linspace(0, math.log(last), count, device="cpu")
    return even.exp().to(torch.get_default_device())


def waves(t: Tensor, frequencies: Tensor) -> Tensor:
    r"""Returns cosines and sines of times, with shape (B, 2 n)."""

    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Block(nn.Module):
    r"""A residual block of two convolutions, with features that scale and shift."""

    def __init__(self, size: int, out: int, features: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(NORMED, size), nn.GroupNorm(NORMED, out)
        self.conv1 = nn.Conv2d(size, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.modulate = nn.Linear(features, 2 * out)
        self.skip = nn.Conv2d(size, out, 1) if size != out else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.modulate(features)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return (self.skip(x) + self.conv2(self.dropout(h))) * math.sqrt(0.5)  # type: ignore[no-any-return]


class Attention(nn.Module):
    r"""Self-attention over pixels, written out so that forward-mode derivatives exist."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(NORMED, size), nn.Conv2d(size, 3 * size, 1)
        self.out = nn.Conv2d(size, size, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=2)
        return x + self.out((v @ weights.transpose(1, 2)).reshape(x.shape))  # type: ignore[no-any-return]


class Halve(nn.Module):
    r"""A convolution that halves height and width."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(size, size, 3, stride=2, padding=1)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class Double(nn.Module):
    r"""Doubles height and width, and convolves."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(size, size, 3, padding=1)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0))  # type: ignore[no-any-return]
