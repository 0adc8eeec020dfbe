r"""The path of a flow between its knots."""

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.shapes import align

SMOOTH, ROUGH = (
    7,
    3,
)  # degrees for a path that is exact at dense knots, and for one with errors of its own


@dataclass(frozen=True)
class Curve:
    r"""Creates a path that, in units of the size of noisy data, is a polynomial between its knots.

    Arguments:
        knots: The logarithms of the noise levels at which it is known, ascending, with shape (K,) or (K, B).
        states: The states there, divided by :func:`size`, with shape (K, B, *).
        std: The root mean square of the data.
        degree: The degree of the polynomials.
    """

    knots: Tensor
    states: Tensor
    std: float
    degree: int

    def rows(self, index: Tensor) -> "Curve":
        r"""Returns the path of some rows."""

        knots = self.knots if self.knots.ndim == 1 else self.knots[:, index.to(self.knots.device)]
        states = self.states[:, index.to(self.states.device)]
        return Curve(knots, states, self.std, self.degree)

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the states at u and their slopes, with shape (B, *).

        Arguments:
            u: One time per row, with shape (B,), or (1,) if all rows share it.
        """

        value, slope = interpolated(self.knots, self.states, u, self.degree)
        unit = size(u, self.std)
        share = torch.exp(2 * u) / unit**2  # the slope of its logarithm
        unit, share = _along(unit, value), _along(share, value)
        return unit * value, unit * (slope + share * value)


def interpolated(knots: Tensor, states: Tensor, u: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    r"""Returns the states of a path that is a polynomial between its knots, and their slopes, with shape (B, *).

    Arguments:
        knots: The times at which it is known, ascending, with shape (K,) or (K, B).
        states: The states there, with shape (K, B, *).
        u: One time per row, with shape (B,), or (1,) if all rows share it.
        degree: The degree of the polynomials, an odd number.
    """

    knots = knots.reshape(len(knots), -1)
    knots, u = torch.broadcast_tensors(knots, u)
    found = torch.searchsorted(knots.T.contiguous(), u[0, :, None].contiguous())
    last = min(degree, len(knots) - 1)  # few knots lower it
    first = (found[:, 0] - (degree + 1) // 2).clamp(0, len(knots) - 1 - last)
    index = first + torch.arange(last + 1)[:, None]
    if index.shape[1] == 1:  # all rows share the knots and the time
        some = states[int(first) : int(first) + last + 1]
    else:
        some = states[index.to(states.device), torch.arange(len(first)).to(states.device)]
    value, slope = torch.zeros_like(some[0]), torch.zeros_like(some[0])
    for weight, rate, state in zip(*lagrange(knots.gather(0, index), u[0]), some, strict=True):
        value = value + _along(weight, state) * state
        slope = slope + _along(rate, state) * state
    return value, slope


def _along(numbers: Tensor, x: Tensor) -> Tensor:
    r"""Numbers with shape (B,) or (1,), for products with x."""

    return align(numbers.expand(len(x)).to(x), x)


def size(u: Tensor, std: float) -> Tensor:
    r"""Returns the root mean square of noisy data at the noise level :math:`e^u`."""

    return (std**2 + torch.exp(2 * u)).sqrt()


def lagrange(near: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the weights of the values at given knots in the interpolant, and in its slope.

    Arguments:
        near: The knots, with shape (k, B).
        u: The points, with shape (B,).
    """

    count = len(near)
    values, slopes = [], []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        scale = torch.stack([near[i] - near[j] for j in others]).prod(0)
        left = [u - near[j] for j in others]
        values.append(torch.stack(left).prod(0) / scale)
        terms = [
            torch.stack([left[m] for m in range(count - 1) if m != skip] or [torch.ones_like(u)])
            for skip in range(count - 1)
        ]
        slopes.append(torch.stack([term.prod(0) for term in terms]).sum(0) / scale)
    return torch.stack(values), torch.stack(slopes)
