r"""Data that are symbols: whole numbers in [0, K), by Gaussian diffusion of a code of each.

A model whose transform is a :class:`scoresde.symbols.Symbols` takes symbols and returns symbols; its states are
their codes: the bits of :class:`scoresde.symbols.Bits`, or the learned vectors of
:class:`scoresde.symbols.Embedding`.
"""

from .bits import Bits
from .bound import elbo
from .chances import probabilities
from .embedding import Embedding
from .form import Symbols
from .score import EmbeddedScore, Vectors

__all__ = [
    "Bits",
    "EmbeddedScore",
    "Embedding",
    "Symbols",
    "Vectors",
    "elbo",
    "probabilities",
]
