r"""Symbols and their codes: what all transforms of symbols share."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.doors.values import as_tensor

from ..doors.data import as_data
from ..models.transforms import Transform


class Symbols(Transform):
    r"""Abstract map between symbols, whole numbers in [0, K) with shape (B, *), and codes with shape (B, *, n).

    Whole numbers are symbols, and floating-point numbers are states already. Latents and the states of paths are
    codes; samples are symbols. A density is that of the code with the noise of `t_min`; see
    :func:`scoresde.symbols.elbo` for the probability of symbols.

    Attributes:
        count: The number K of symbols.
        width: The number n of entries of a code.

    Examples:
        >>> bits = ss.symbols.Bits(6)
        >>> isinstance(bits, ss.symbols.Symbols), bits.count, bits.width
        (True, 6, 3)
    """

    lossless = False
    whole = True
    count: int
    width: int

    @property
    @abstractmethod
    def distance(self) -> float:
        r"""The smallest distance between the codes of two symbols."""

    @abstractmethod
    def code(self, symbols: Tensor) -> Tensor:
        r"""Returns the codes of symbols, with shape (B, *, n).

        Arguments:
            symbols: Whole numbers in [0, K), with shape (B, *).
        """

    @abstractmethod
    def log_probabilities(self, denoised: Tensor, logits: Tensor | None) -> Tensor:
        r"""Returns the log-probabilities of symbols, with shape (B, *, K).

        Arguments:
            denoised: Denoised states, with shape (B, *, n).
            logits: The logits of the network, with shape (B, *, K), if it has some.
        """

    def pack(self, name: str, x: object) -> Tensor:
        return as_data(name, x, finite=False)

    def unpack(self, x: Tensor) -> Tensor:
        return x

    def inside(self, name: str, x: object) -> Tensor:
        value = as_tensor(name, x)
        if not value.is_floating_point():
            return self.code(as_symbols(name, value, self.count))
        if not value.ndim or value.shape[-1] != self.width:
            raise ValueError(
                f"{name} must hold symbols, whole numbers in [0, {self.count}), or their codes, with shape (B, *, "
                f"{self.width}), but holds {value.dtype} of shape {tuple(value.shape)}."
            )
        return as_data(name, value, finite=False)

    def inner_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, self.width)

    def state_shape(self, shape: Sequence[int] | None) -> tuple[int, ...] | None:
        r"""Returns the shape of one state, from that of the symbols of one sample."""

        if shape is None:
            return None
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
            raise ValueError(f"shape must hold positive whole numbers, but is {shape!r}.")
        return self.inner_shape(tuple(shape))


def as_symbols(name: str, value: object, count: int) -> Tensor:
    r"""Returns symbols in int64.

    Raises:
        TypeError: If they are no whole numbers.
        ValueError: If one is not in [0, count), or there are none.
    """

    x = as_tensor(name, value)
    if x.is_floating_point() or x.dtype == torch.bool:
        raise TypeError(
            f"{name} must hold symbols, whole numbers in [0, {count}), but holds {x.dtype}; pass {name}.long()."
        )
    if not x.ndim or not x.numel():
        raise ValueError(
            f"{name} must have shape (B, *), B >= 1, but has {tuple(x.shape)}; pass a batch."
        )
    out = (x < 0) | (x >= count)
    if bool(out.any()):
        raise ValueError(
            f"{name} must hold symbols in [0, {count}), but holds {int(x[out][0])}; number the symbols from 0, or "
            "pass a larger count."
        )
    return x.long()
