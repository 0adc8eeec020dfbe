r"""Symbols as the bits of their numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_whole

from .form import Symbols

MOST = 2**20  # symbols whose codes are held in a table
LEAST = 1e-12  # probability of a bit, where an estimate leaves [-1, 1]


class Bits(Symbols):
    r"""Creates the map between symbols and the bits of their numbers, -1 or 1, with the highest bit first.

    Samples are rounded: each bit is that of the sign of its entry. If K is no power of two, some codes have no
    symbol; they become the symbol with the nearest code, in Euclidean distance to the state.

    The denoised data is :math:`D_j = 2 P(b_j = 1 \mid x_t) - 1`, so a code b has the probability

    .. math:: P(b) \propto \prod_j \frac{1 + b_j D_j}{2} ,

    which is exact if the bits are independent given the noisy state, as they are where the noise is small.

    References:
        | Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning (Chen et al., 2022),
        | section 2.1
        | https://arxiv.org/abs/2208.04202

    Arguments:
        count: The number K of symbols, at least 2.
        gray: Whether to take the bits of the Gray code, in which neighbours differ in one bit.
        shape: The shape of the symbols of one sample, so that models need not know that of a state.

    Examples:
        >>> bits = ss.symbols.Bits(6)
        >>> bits.inside("x", torch.tensor([[5, 2]]))
        tensor([[[ 1., -1.,  1.],
                 [-1.,  1., -1.]]])
        >>> bits.outside(torch.tensor([[0.9, 0.8, -0.1]]))  # 110 is no symbol; 100 is 4, and 010 is 2
        tensor([4])
        >>> pair = ss.MixtureOracle(ss.symbols.Bits(2, shape=(1,)).inside("x", [[0], [1]]), 0.01)
        >>> pair.transform = ss.symbols.Bits(2, shape=(1,))
        >>> sorted(set(ss.sample(pair, 20, steps=5).x[:, 0].tolist()))
        [0, 1]
    """

    @checked
    def __init__(self, count: int, gray: bool = False, shape: Sequence[int] | None = None) -> None:
        self.count, self.gray = as_whole("count", count, at_least=2, at_most=MOST), gray
        self.width = (self.count - 1).bit_length()
        number = torch.arange(2**self.width)
        place = torch.arange(self.width).flip(0)
        binary = number ^ (number >> 1) if gray else number
        self.codes = 2.0 * ((binary[: self.count, None] >> place) & 1) - 1  # (K, n)
        self._symbol = torch.full_like(number, -1)
        self._symbol[binary[: self.count]] = number[: self.count]
        self._weight = 1 << place
        self.shape = self.state_shape(shape)

    def __repr__(self) -> str:
        return f"Bits({self.count}{', gray=True' if self.gray else ''})"

    @property
    def distance(self) -> float:
        return 2.0  # one bit

    def code(self, symbols: Tensor) -> Tensor:
        codes = self.codes.to(symbols.device, torch.get_default_dtype())
        return codes[symbols]

    def outside(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.width:
            raise ValueError(
                f"states of {self!r} have shape (B, *, {self.width}), but these have {tuple(x.shape)}."
            )
        bits = (x > 0).long()
        found = self._symbol.to(x.device)[(bits * self._weight.to(x.device)).sum(-1)]
        lost = found < 0
        if bool(lost.any()):
            found[lost] = (x[lost] @ self.codes.to(x).T).argmax(-1)
        return found

    def log_probabilities(self, denoised: Tensor, logits: Tensor | None = None) -> Tensor:
        r"""Returns the log-probabilities of symbols, with shape (B, *, K).

        Arguments:
            denoised: Denoised states, with shape (B, *, n).
            logits: Not used.
        """

        one = ((1 + denoised.double()) / 2).clamp(LEAST, 1 - LEAST)
        set_ = (self.codes.to(one) + 1) / 2
        return (one.log() @ set_.T + (-one).log1p() @ (1 - set_).T).log_softmax(-1)

    @property
    def described(self) -> dict[str, Any]:
        shape = None if self.shape is None else list(self.shape[:-1])
        return {"name": "Bits", "count": self.count, "gray": self.gray, "shape": shape}
