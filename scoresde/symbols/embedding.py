r"""Learned vectors of symbols."""

import math

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.doors.values import as_whole
from solvers.noise.brownian import DATA_NOISE, keyed_normal

LARGEST, WIDEST = 2**20, 2**14  # count of symbols, and entries of a vector


@checked
class Embedding(nn.Module):
    r"""Creates learned vectors of symbols, normalised so that their entries have the root mean square 1,

    .. math:: e_k = \sqrt n \, w_k / |w_k| .

    Vectors of a fixed length cannot grow to escape the noise, which a loss on symbols alone would reward.

    References:
        | Continuous Diffusion for Categorical Data (Dieleman et al., 2022)
        | https://arxiv.org/abs/2211.15089

    Arguments:
        count: The number K of symbols, at least 2.
        width: The number n of entries of a vector.
        seed: The seed of the first directions.

    Examples:
        >>> embedding = ss.symbols.Embedding(5, 3)
        >>> embedding(torch.tensor([[0, 4]])).square().mean(-1)
        tensor([[1., 1.]], grad_fn=<MeanBackward1>)
        >>> embedding.nearest(embedding.vectors)
        tensor([0, 1, 2, 3, 4])
    """

    def __init__(self, count: int, width: int, seed: int = 0) -> None:
        super().__init__()
        self.count = as_whole("count", count, at_least=2, at_most=LARGEST)
        self.width = as_whole("width", width, at_least=1, at_most=WIDEST)
        first = keyed_normal(seed, torch.arange(self.count), DATA_NOISE, 0, self.width)
        self.weight = nn.Parameter(first.to(torch.get_default_dtype()).contiguous())

    @property
    def vectors(self) -> Tensor:
        r"""The vectors of all symbols, with shape (K, n)."""

        return math.sqrt(self.width) * nn.functional.normalize(self.weight, dim=-1)

    def forward(self, symbols: Tensor) -> Tensor:
        r"""Returns the vectors of symbols, with shape (B, \*, n).

        Arguments:
            symbols: Whole numbers in [0, K), with shape (B, \*).
        """

        return self.vectors[symbols]

    def nearest(self, x: Tensor) -> Tensor:
        r"""Returns the symbols whose vectors are nearest, with shape (B, \*).

        Arguments:
            x: States, with shape (B, \*, n).
        """

        return (x @ self.vectors.detach().to(x).T).argmax(-1)  # of one length, so by the angle
