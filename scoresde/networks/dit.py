r"""A small transformer of image patches."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solvers.doors.signatures import checked

from .attention import CrossAttention, SelfAttention
from .inputs import (
    check_dropout,
    check_input,
    check_multiple,
    check_settings,
    embedded,
    with_estimate,
)
from .unet import frequencies, waves


@checked
class DiT(nn.Module):
    r"""Creates a transformer for square images, whose blocks are modulated by the time and the label.

    A block adds :math:`g \odot f((1 + s) \odot \mathrm{norm}(h) + b)` to its input h, for attention and for a
    network of two layers as f, with g, s and b of the time and the label. Before training, all g are 0
    (adaLN-Zero), and so is the output.

    References:
        | Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), section 3.2
        | https://arxiv.org/abs/2212.09748
        | Analog Bits (Chen et al., 2023), section 2.2, for self-conditioning
        | https://arxiv.org/abs/2208.04202
        | PixArt-alpha (Chen et al., 2024), section 2.3, for cross-attention in its blocks
        | https://arxiv.org/abs/2310.00426

    Arguments:
        channels: The number of channels of the images.
        size: The height and width of the images.
        patch: The height and width of a patch, of which each is a token.
        width: The number of features of a token, a multiple of `heads`, and of 4.
        depth: The number of blocks.
        heads: The number of heads of attention.
        classes: The number of labels, or 0 for none.
        context: The size of the tokens of a condition that blocks attend to, or 0 for none.
        dropout: The probability of dropping a feature in training.
        self_conditioning: Whether it takes its last estimate of the data.

    Examples:
        >>> from scoresde.networks import DiT
        >>> network = DiT(width=32, depth=2, context=5)
        >>> network(torch.zeros(2, 1, 8, 8), torch.zeros(2), context=torch.ones(2, 3, 5)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 8,
        patch: int = 2,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        classes: int = 0,
        context: int = 0,
        dropout: float = 0.0,
        self_conditioning: bool = False,
    ) -> None:
        super().__init__()
        check_settings(1, channels=channels, patch=patch, depth=depth, heads=heads)
        check_settings(0, classes=classes, context=context)
        check_multiple("size", size, patch, "the size of a patch")
        check_multiple("width", width, math.lcm(4, heads), "of 4 and of the number of heads")
        check_dropout(dropout)
        self.channels, self.size, self.patch = channels, size, patch
        self.context, self.self_conditioning = context, self_conditioning
        self.frequencies = nn.Buffer(frequencies(width // 2))
        self.places = nn.Buffer(places(size // patch, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        entries = channels * patch**2
        self.first = nn.Linear((1 + self_conditioning) * entries, width)
        self.blocks = nn.ModuleList([Block(width, heads, context, dropout) for _ in range(depth)])
        self.modulate = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, entries)
        for layer in (self.modulate, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        r"""Returns the output, a tensor like `x`.

        Arguments:
            x: Images, with shape (B, C, size, size).
            t: A number for the noise level, with shape (B,).
            label: The labels, with shape (B,), where `classes` stands for no label.
            context: The tokens of a condition, with shape (B, n, d), in any order. By default, there is none.
            context_mask: True or 1 where there is a token, with shape (B, n). By default, everywhere.
            estimate: With self-conditioning, the last estimate of the data, like `x`. By default, 0.
        """

        check_input(self, x, (self.channels, self.size, self.size))
        context, seen = self._tokens(x, context, context_mask)
        h = self.first(self._patches(with_estimate(self, x, estimate, self.self_conditioning)))
        h = h + self.places.to(x.dtype)
        features = self.time(waves(t, self.frequencies).to(x.dtype))
        features = F.silu(features + embedded(self.label, label, x))
        for block in self.blocks:
            h = block(h, features, context, seen)
        scale, shift = self.modulate(features)[:, None].chunk(2, dim=2)
        return self._image(self.last(modulated(h, scale, shift)))

    def _tokens(
        self, x: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        r"""The tokens of the condition, 0 where there is none, and whether they are seen."""

        if context is None:
            if mask is not None:
                raise ValueError("context_mask= has no effect without context=; pass both.")
            return None, None
        if not self.context:
            raise ValueError(
                "context= is for networks that take one; make this one with context=."
            )
        if context.ndim != 3 or len(context) != len(x) or context.shape[2] != self.context:
            raise ValueError(
                f"context must have shape ({len(x)}, n, {self.context}), but has {tuple(context.shape)}."
            )
        if mask is None:
            return context.to(x), None
        if mask.shape != context.shape[:2]:
            raise ValueError(
                f"context_mask must have shape {tuple(context.shape[:2])}, but has {tuple(mask.shape)}."
            )
        seen = mask.to(x.device) != 0
        return context.to(x).masked_fill(~seen[..., None], 0.0), seen

    def _patches(self, x: Tensor) -> Tensor:
        r"""The patches of images as tokens, from shape (B, C, H, W) to (B, n, C p p)."""

        parts = x.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _image(self, tokens: Tensor) -> Tensor:
        r"""The images of which these are the patches."""

        side, p = self.size // self.patch, self.patch
        parts = tokens.reshape(len(tokens), side, side, self.channels, p, p)
        return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class Block(nn.Module):
    r"""A block of attention to itself, attention to a condition, and two layers."""

    def __init__(self, width: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm = nn.LayerNorm(width) if context else None
        self.cross = CrossAttention(width, heads, context) if context else None
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(approximate="tanh"),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self, x: Tensor, features: Tensor, context: Tensor | None, seen: Tensor | None
    ) -> Tensor:
        s1, b1, g1, s2, b2, g2 = self.modulate(features)[:, None].chunk(6, dim=2)
        x = x + g1 * self.attention(modulated(x, s1, b1))
        if self.cross is not None and self.norm is not None:
            x = x + self.cross(self.norm(x), context, seen)
        return x + g2 * self.layers(modulated(x, s2, b2))  # type: ignore[no-any-return]


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Returns tokens with normalised features, scaled and shifted."""

    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def places(side: int, width: int) -> Tensor:
    r"""Returns waves of the row and the column of each patch of a square, with shape (side * side, width)."""

    slow = frequencies(width // 4, 0.01)
    along = waves(torch.arange(side, dtype=slow.dtype), slow)
    rows, columns = along.repeat_interleave(side, 0), along.repeat(side, 1)
    return torch.cat([rows, columns], dim=1)
