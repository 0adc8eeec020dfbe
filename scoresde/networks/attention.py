r"""Attention, written out so that forward-mode derivatives exist, and twice in reverse."""

import math

import torch
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""Returns :math:`\mathrm{softmax}(q k^T / \sqrt{d}) \, v`, with the shape of `q`.

    Arguments:
        q: Queries, with shape (B, h, n, d).
        k: Keys, with shape (B, h, m, d).
        v: Values, with shape (B, h, m, d).
        seen: Which keys are seen, with shape (B, m), at least one of each row. By default, all.
    """

    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
    return torch.softmax(scores, dim=3) @ v


class SelfAttention(nn.Module):
    r"""Attention of a sequence to itself, with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))
        return self.out(_joined(attend(q, k, v)))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    r"""Attention to the tokens of a condition and to one token of its own, which is all there is without one.

    Its output is 0 before training.
    """

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.null = nn.Parameter(torch.zeros(1, 1, context))
        self.q, self.kv = nn.Linear(width, width), nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor | None, seen: Tensor | None) -> Tensor:
        r"""Returns what is added to a sequence, with its shape.

        Arguments:
            x: The sequence, with shape (B, n, width).
            context: The tokens, with shape (B, m, d).
            seen: Which of them are there, with shape (B, m). By default, all.
        """

        tokens = self.null.expand(len(x), -1, -1)
        if context is not None:
            tokens = torch.cat([tokens, context], dim=1)
        if seen is not None:
            seen = torch.cat([torch.ones_like(seen[:, :1]), seen], dim=1)
        k, v = (_split(part, self.heads) for part in self.kv(tokens).chunk(2, dim=2))
        found = attend(_split(self.q(x), self.heads), k, v, seen)
        return self.out(_joined(found))  # type: ignore[no-any-return]


def _split(x: Tensor, heads: int) -> Tensor:
    r"""A sequence by heads, from shape (B, n, w) to (B, h, n, w / h)."""

    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    r"""The heads of a sequence side by side, from shape (B, h, n, d) to (B, n, h d)."""

    return x.transpose(1, 2).flatten(2)
