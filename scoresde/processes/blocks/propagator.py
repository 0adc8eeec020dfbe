r"""Linear differential equations for matrices, solved once and to round-off.

On each piece of a span, :math:`X' = R(t) X` with X = I at its start is solved at Chebyshev points by Picard
iteration of the integral equation, whose sums are spectral. The pieces are halved until the last coefficients of
the solution vanish. Nothing is assumed about R at different times, which need not commute.

References:
    | Approximation Theory and Approximation Practice (Trefethen, 2013), chapters 3 and 8
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

Rates = Callable[[Tensor], Tensor]  # times with shape (n,) -> matrices with shape (n, k, k)
POINTS, PIECES, MOST = 16, 16, 1024
FEW = 2**22  # coefficients that times may hold at once
SWEEPS = 80  # of Picard's iteration, which ends when nothing changes
TINY = 1e-300
ENOUGH, AT_LEAST = 1e-13, 1e-8  # of the last coefficients: what ends halving, and what is accepted

NODES = torch.from_numpy(np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)[::-1].copy())
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(NODES.numpy(), POINTS - 1))
_INTEGRAL = np.stack([chebyshev.chebint(row, lbnd=-1) for row in np.eye(POINTS)], axis=1)
TO_COEFFICIENTS = torch.from_numpy(_TO_COEFFICIENTS)
FROM_START = torch.from_numpy(  # the integrals from -1 to each point
    chebyshev.chebvander(NODES.numpy(), POINTS) @ _INTEGRAL @ _TO_COEFFICIENTS
)


@dataclass(frozen=True, eq=False)
class Pieces:
    r"""Functions of time with values of any shape, as polynomials on pieces of a span.

    Arguments:
        edges: The ends of the pieces, ascending, with shape (n + 1,).
        coefficients: The Chebyshev coefficients, with shape (n, m, *).
    """

    edges: Tensor
    coefficients: Tensor

    def piece(self, t: Tensor) -> Tensor:
        r"""Returns the number of the piece of each time."""

        found = torch.searchsorted(self.edges, t.contiguous(), right=True) - 1
        return found.clamp(0, len(self.edges) - 2)

    def __call__(self, t: Tensor) -> Tensor:
        r"""Returns the values at times with shape (n,)."""

        piece = self.piece(t)
        low, high = self.edges[piece], self.edges[piece + 1]
        place = (2 * (t - low) / (high - low) - 1).clamp(-1, 1)
        degrees = torch.arange(self.coefficients.shape[1], dtype=torch.float64)
        basis = torch.cos(torch.acos(place)[:, None] * degrees)
        flat = self.coefficients.flatten(2)
        if len(t) * flat[0].numel() <= FEW:
            found = torch.einsum("nm,nmj->nj", basis, flat[piece])
            return found.reshape(len(t), *self.coefficients.shape[2:])
        found = flat.new_empty(len(t), flat.shape[-1])
        for i in piece.unique().tolist():  # so that no time holds the coefficients of its own
            here = piece == i
            found[here] = basis[here] @ flat[i]
        return found.reshape(len(t), *self.coefficients.shape[2:])


def through(edges: Tensor, values: Tensor) -> Pieces:
    r"""Returns the polynomials through values at the points of all pieces, with shape (n, m, *)."""

    return Pieces(edges, torch.einsum("ab,nb...->na...", TO_COEFFICIENTS, values))


def points_of(edges: Tensor) -> Tensor:
    r"""Returns the points of all pieces, with shape (n, m)."""

    return edges[:-1, None] + edges.diff()[:, None] / 2 * (NODES + 1)


def integral(edges: Tensor, values: Tensor) -> Pieces:
    r"""Returns the integrals from the start of each piece of values at its points, with shape (n, m, *)."""

    half = (edges.diff() / 2).reshape(-1, *(1,) * (values.ndim - 1))
    return through(edges, half * torch.einsum("ab,nb...->na...", FROM_START, values))


@dataclass(frozen=True, eq=False)
class Propagator:
    r"""The matrices that carry solutions of :math:`x' = R(t) x` from one time to another.

    Arguments:
        local: The solutions that start from I at the start of each piece.
        rates: The rates at the points of the pieces, with shape (n, m, k, k).
    """

    local: Pieces
    rates: Tensor

    @staticmethod
    def of(rates: Rates, edges: Tensor, spread: Rates | None = None) -> "Propagator":
        r"""Returns the propagator over a span, whose pieces are halved as often as needed.

        Arguments:
            rates: The rates R.
            edges: The ends of the first pieces, ascending.
            spread: A function whose integrals the pieces must resolve, too.

        Raises:
            ValueError: If the rates are not finite, or too rough for polynomials.
        """

        while True:
            values = _finite(rates, points_of(edges))
            local = _solved(edges, values)
            last = _last(local.coefficients, local.coefficients.abs().amax((1, 2, 3)))
            if spread is not None:
                gained = integral(edges, _finite(spread, points_of(edges))).coefficients
                last = max(last, _last(gained, gained.abs().amax().clamp(min=TINY)))
            if last <= ENOUGH or 2 * len(edges) > MOST:
                break
            edges = torch.cat([edges, (edges[1:] + edges[:-1]) / 2]).sort().values
        if not last <= AT_LEAST:
            raise ValueError(
                f"the rates of the process are not smooth: {MOST} polynomials up to t_max leave a relative error "
                f"of {last:.2g}; smooth their jumps, or choose another t_max."
            )
        return Propagator(local, values)

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns the matrices from s to t, each with shape (n,), with shape (n, k, k)."""

        start, end = self.local.piece(s), self.local.piece(t)
        after = self.local(t) @ self._between[end, start]
        return torch.linalg.solve(self.local(s), after, left=False)

    @cached_property
    def _between(self) -> Tensor:
        r"""The matrices from the start of the second piece to that of the first, with shape (n, n, k, k)."""

        whole = self.local.coefficients.sum(
            1
        )  # at the ends, where all Chebyshev polynomials are 1
        count, eye = len(whole), torch.eye(whole.shape[-1], dtype=torch.float64)
        found = eye.expand(count, count, *eye.shape).clone()
        for i in range(1, count):
            found[i, :i] = whole[i - 1] @ found[i - 1, :i]
        lower = torch.tril_indices(count, count, -1)
        found[lower[1], lower[0]] = torch.linalg.inv(found[lower[0], lower[1]])
        return found


def _finite(function: Rates, times: Tensor) -> Tensor:
    r"""The values at the points of all pieces."""

    values = function(times.flatten())
    values = values.reshape(*times.shape, *values.shape[-2:])
    if not bool(values.isfinite().all()):
        bad = times[~values.isfinite().flatten(2).all(-1)][0]
        raise ValueError(f"the rates of the process are not finite at t={bad:.6g}.")
    return values


def _last(coefficients: Tensor, size: Tensor) -> float:
    r"""The largest of the last coefficients of all pieces, relative to their size."""

    last = coefficients[:, -2:].abs().amax((1, 2, 3)) / size
    return float(torch.nan_to_num(last, nan=1.0).max())


def _solved(edges: Tensor, rates: Tensor) -> Pieces:
    r"""The solutions from I on each piece."""

    half = (edges.diff() / 2)[:, None, None, None]
    eye = torch.eye(rates.shape[-1], dtype=torch.float64)
    X = eye.expand_as(rates)
    for _ in range(SWEEPS):
        new = eye + half * torch.einsum("ab,nbij->naij", FROM_START, rates @ X)
        change = (new - X).abs().amax()
        X = new
        if not change > 1e-16 * X.abs().amax():
            break
    return through(edges, X)
