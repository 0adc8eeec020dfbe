r"""Functions of time and their integrals, exact to round-off.

Pieces are halved until the Gauss-Legendre sum over each equals those over its halves. So a jump ends up between
edges that nearly touch, and a steep rate gets short pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from solvers.doors.values import is_number, shown

Rate = Callable[[Tensor], Tensor]
Known = Rate | float
PIECES, POINTS = 256, 8  # initial pieces, and nodes of the sum over each
NODES, WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(POINTS))
MOST = 2**17  # pieces
TOLERANCE, ENOUGH = (
    1e-11,
    1e-7,
)  # of the sum over a piece, and of one as short as float64 resolves
SHORTEST = 1e-14  # of the whole span
EDGE = 1e-7  # of a piece: how near its ends it is checked


def check_rate(name: str, rate: object) -> None:
    r"""Refuses anything that is neither a number nor a function of time."""

    if isinstance(rate, bool) or not (callable(rate) or isinstance(rate, Real | Tensor)):
        raise TypeError(f"{name} must be a function of t, or a number, but is {rate!r}.")


def rate_at(name: str, rate: Known, t: Tensor) -> Tensor:
    r"""Returns the values of a function of time, or a constant, with the shape of `t`.

    Raises:
        ValueError: If the function returns a different shape.
    """

    value: Tensor | float = rate(t) if callable(rate) else rate
    if not isinstance(value, Tensor) and not is_number(value):
        raise TypeError(f"{name} must return a number for each time, but returned {shown(value)}.")
    value = value.to(t) if isinstance(value, Tensor) else torch.as_tensor(value, dtype=t.dtype)
    if value.numel() != 1 and value.shape != t.shape:
        raise ValueError(
            f"{name} must return a number, or one for each time, with shape {tuple(t.shape)}, but returned "
            f"shape {tuple(value.shape)}."
        )
    return value if value.shape == t.shape else value.reshape(()).to(t).expand(t.shape)


@dataclass(frozen=True)
class Antiderivative:
    r"""Creates the integral of a function of time, from the first edge on.

    Arguments:
        rate: The function.
        edges: The ends of the pieces, in ascending order.
        values: The integral at the edges.
    """

    rate: Rate
    edges: Tensor
    values: Tensor

    @staticmethod
    def of(rate: Rate, edges: Tensor) -> "Antiderivative":
        r"""Returns the integral over the given pieces."""

        pieces = gauss(rate, edges[:-1], edges[1:])
        return Antiderivative(rate, edges, torch.cat([torch.zeros(1).double(), pieces.cumsum(0)]))

    def __call__(self, t: Tensor) -> Tensor:
        piece = torch.searchsorted(self.edges, t.detach().double().contiguous(), right=True)
        piece = piece.clamp(1, len(self.edges) - 1) - 1
        return (self.values[piece] + gauss(self.rate, self.edges[piece], t.double())).to(t)


def gauss(rate: Rate, low: Tensor, high: Tensor) -> Tensor:
    r"""Returns the integrals of a function of time between the entries of two tensors."""

    half = (high - low)[..., None] / 2
    times = low[..., None] + half * (NODES + 1)
    return (rate(times.reshape(-1)).reshape(times.shape) * WEIGHTS * half).sum(-1)


def _unseen(rate: Rate, low: Tensor, high: Tensor) -> Tensor:
    r"""The error that a jump between the ends of a piece and the outermost nodes would cause.

    There, the function is compared with the polynomial through the nodes.
    """

    nodes = NODES.numpy()
    others = [np.delete(nodes, i) for i in range(POINTS)]
    last = torch.tensor([np.prod((1 - o) / (x - o)) for x, o in zip(nodes, others, strict=True)])
    half = (high - low)[:, None] / 2
    inner = low[:, None] + half * (torch.from_numpy(nodes) + 1)
    values = rate(inner.reshape(-1)).reshape(inner.shape)
    ends = torch.stack([high - EDGE * half[:, 0], low + EDGE * half[:, 0]])
    found = rate(ends.reshape(-1)).reshape(ends.shape)
    expected = torch.stack([values @ last, values.flip(1) @ last])
    return (found - expected).abs().sum(0) * half[:, 0] * (1 - nodes[-1])


def refined(name: str, rate: Rate, edges: Tensor, size: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Returns edges between which the quadrature of a function of time is accurate.

    Arguments:
        name: The name of the function.
        rate: The function.
        edges: The initial edges.
        size: The size that errors are compared with, as a function of time.

    Raises:
        ValueError: If it cannot be integrated, near a pole or because it is random.
    """

    low, high, kept = edges[:-1], edges[1:], [edges]
    whole, shortest = gauss(rate, low, high), SHORTEST * float(edges[-1])
    while len(low):
        middle = (low + high) / 2
        left, right = gauss(rate, low, middle), gauss(rate, middle, high)
        gap, size_there, short = (left + right - whole).abs(), size(high), high - low < shortest
        unseen = _unseen(rate, low, middle) + _unseen(rate, middle, high)
        error = gap + torch.where(short, 0.0, unseen)
        wrong = ~(error <= torch.where(short, ENOUGH, TOLERANCE) * size_there)
        stuck = wrong & (short | (sum(map(len, kept)) > MOST) | ~error.isfinite())
        if bool(stuck.any()):
            raise ValueError(
                f"{name} cannot be integrated near t={low[stuck][0]:.6g}: it has a pole "
                "there, or is not a function of t alone; choose t_max before the pole, or pass the "
                "scales to ss.CustomProcess."
            )
        kept.append(middle[wrong])
        low, high = torch.cat([low[wrong], middle[wrong]]), torch.cat([middle[wrong], high[wrong]])
        whole = torch.cat([left[wrong], right[wrong]])
    return torch.cat(kept).sort().values
