r"""Traces of the denoiser's Jacobian minus that of the Gaussian companion, exact or by probes.

A probe v with random signs in the axes of the data gives

.. math:: v^T (J - J_G) v = \sum_i c_i , \qquad c_i = v_i \, ((J - J_G) v)_i ,

whose variance is :math:`2 \sum_{i \neq j} S_{ij}^2` for the symmetric part S of J, and at most twice the sum of
the variances of the :math:`c_i`, so the noise can be estimated from a single probe and its neighbours.

References:
    | Hutch++: Optimal Stochastic Trace Estimation (Meyer et al., 2021), algorithm 1
    | https://arxiv.org/abs/2010.09649
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from solvers.divergence import jacobian_columns, jacobian_products, jacobian_rows, signs
from solvers.noise.brownian import Seed
from solvers.problem import StateField

from .companion import Companion
from .curve import lagrange
from .students import freedom, widening

FILLED = 1e-3  # of a sketch, to separate its axes from round-off
Kind = Literal["exact", "hutchinson", "fixed", "hutch++"]


class Trace(NamedTuple):
    r"""The result of one node.

    Arguments:
        value: The trace minus the companion's, with shape (B,), in float64.
        parts: The summands of each probe, with shape (k, B, c), if they are needed for its noise.
        denoised: The denoised data, with shape (B, *).
        twist: The squared :func:`twist` of the Jacobian, with shape (B,), if it is known.
    """

    value: Tensor
    parts: Tensor | None
    denoised: Tensor
    twist: Tensor | None = None


@dataclass(frozen=True)
class Tracer:
    r"""Creates the estimator of traces.

    Arguments:
        companion: The Gaussian companion.
        kind: "exact"; "hutchinson", with fresh probes at each node; "fixed", with the same probes at all nodes;
            or "hutch++", which finds the largest directions with a third of the probes, computes these exactly
            with another third, and estimates the rest with the last third.
        probes: The number of probes.
        seed: Their seed.
        index: The indices of the samples, with shape (B,).
        reverse: Whether exact traces use reverse mode.
    """

    companion: Companion
    kind: Kind
    probes: int
    seed: Seed
    index: Tensor
    reverse: bool = False

    def rows(self, index: Tensor) -> "Tracer":
        r"""Returns the same for some rows."""

        seed = (
            self.seed[index.to(self.seed.device)] if isinstance(self.seed, Tensor) else self.seed
        )
        return replace(self, seed=seed, index=self.index[index.to(self.index.device)])

    @property
    def random(self) -> bool:
        r"""Whether every node has its own probes."""

        return self.kind in ("hutchinson", "hutch++")

    @property
    def products(self) -> int:
        r"""The Jacobian products of one node."""

        return len(self.companion.moments.mean.flatten()) if self.kind == "exact" else self.probes

    def __call__(self, field: StateField, y: Tensor, u: Tensor, draw: int) -> Trace:
        r"""Returns the trace at a node.

        Arguments:
            field: The denoiser at the noise levels of the rows.
            y: The states, with shape (B, *).
            u: The logarithms of the noise levels, with shape (B,).
            draw: The number of the draw of probes.
        """

        u = u.to(y.device)
        if self.kind == "exact":
            return self._exact(field, y, u)
        drawn = self.draw(0 if self.kind == "fixed" else draw)
        if self.kind == "hutch++":
            return self._sketched(field, y, u, drawn)
        v = self.companion.directions(drawn)
        denoised, products = jacobian_products(field, y, v)
        parts = self._parts(v, products, u)
        value = parts.mean(0).sum(1)
        return Trace(value, None if self.kind == "fixed" else parts, denoised)

    def pilot(self, field: StateField, y: Tensor, u: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        r"""Returns two estimates from two probes, each with shape (B,).

        They are the standard deviation of the value of one probe, and the squared :func:`twist`.
        """

        v = self.companion.directions(self.draw(draw, 2))
        products = jacobian_products(field, y, v)[1]
        parts = self._parts(v, products, u.to(y.device))
        v, products = v.flatten(2).double(), products.flatten(2).double()
        skew = ((v[1] * products[0]).sum(1) - (v[0] * products[1]).sum(1)).square()
        return (parts[0] - parts[1]).square().sum(1).sqrt(), twist(
            skew, (v - products).square().sum(2).mean(0)
        )

    def _exact(self, field: StateField, y: Tensor, u: Tensor) -> Trace:
        d, value = y[0].numel(), torch.zeros(len(y), dtype=torch.float64, device=y.device)
        size, turn, denoised = value, value[:, None], y
        v = signs(0, torch.zeros_like(self.index[:1]), 0, 1, d)[0, 0].to(value)
        for some, denoised, found in self._jacobian(field, y):  # noqa: B007
            columns = found.double()
            here = some[:, None, None].expand(-1, len(y), 1)
            entries = columns.gather(2, here)[..., 0]
            value = value + entries.sum(0)
            columns = columns.detach()
            size = size + columns.square().sum((0, 2)) - 2 * entries.detach().sum(0) + len(some)
            turn = turn + torch.einsum("kbd,k->bd", columns, v[some])  # J v, minus the transpose's
            turn = turn.index_add(1, some, -(columns @ v).T)
        return Trace(
            value - self.companion.trace(u), None, denoised, twist(turn.square().sum(1), size)
        )

    def _jacobian(self, field: StateField, y: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        r"""The columns of the Jacobian, or its rows, which give the same trace and twist."""

        if not self.reverse:
            return jacobian_columns(field, y)
        denoised, rows = jacobian_rows(field, y)
        return [(torch.arange(len(rows), device=y.device), denoised, rows)]

    def draw(self, number: int, count: int | None = None) -> Tensor:
        r"""Returns the coordinates of probes, with shape (k, B, c)."""

        count = self.probes if count is None else count
        return signs(self.seed, self.index, number, count, self.companion.size)

    def _parts(self, v: Tensor, products: Tensor, u: Tensor) -> Tensor:
        r"""The :math:`c_i` of each probe, with shape (k, B, c), in the axes of the companion."""

        along = self.companion.split(v)
        return along * (self.companion.split(products) - self.companion.gains(u) * along)

    def _sketched(self, field: StateField, y: Tensor, u: Tensor, drawn: Tensor) -> Trace:
        third = self.probes // 3
        v = self.companion.directions(drawn)
        denoised, sketch = self._beyond(field, y, u, v[: min(third, y[0].numel())])
        axes = independent(sketch.flatten(2).permute(1, 2, 0))  # (B, d, third)
        known = axes.permute(2, 0, 1).reshape(-1, *y.shape)
        largest = (known * self._beyond(field, y, u, known)[1]).flatten(2).double().sum((0, 2))
        others = v[2 * third :].flatten(2).transpose(0, 1)  # (B, k, d)
        others = (others - others @ axes @ axes.transpose(1, 2)).transpose(0, 1)
        others = others.reshape(-1, *y.shape)
        parts = (others * self._beyond(field, y, u, others)[1]).flatten(2).double()
        return Trace(largest + parts.mean(0).sum(1), parts, denoised)

    def _beyond(self, field: StateField, y: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""The denoised data, and the products with the Jacobian minus the companion's."""

        denoised, products = jacobian_products(field, y, v)
        gains = self.companion.gains(u).to(v)
        return denoised, products - self.companion.directions(gains * self.companion.split(v))


def twist(skew: Tensor, size: Tensor) -> Tensor:
    r"""Returns the squared distance of a score from a gradient, :math:`|J - J^T|^2 / (4 |I - J|^2)`, as (B,).

    The score is :math:`(D - y) / s^2`, whose Jacobian :math:`(J - I) / s^2` is symmetric if it is a gradient.

    Arguments:
        skew: An estimate of :math:`|J - J^T|^2`.
        size: An estimate of :math:`|I - J|^2`.
    """

    return (skew / (4 * size).clamp(min=torch.finfo(size.dtype).tiny)).clamp(max=1)


def independent(sketch: Tensor) -> Tensor:
    r"""Returns orthonormal axes whose span contains that of a sketch, with shape (B, d, k).

    If the sketch spans fewer than k directions, as for a Jacobian of low rank, round-off would choose the
    others, differently in each batch. So small multiples of the first coordinate axes are added, which choose
    them.

    Arguments:
        sketch: The products with k probes, with shape (B, d, k), with k <= d.
    """

    size = torch.linalg.matrix_norm(sketch)[:, None, None]
    size = torch.where(size > 0, size, torch.ones_like(size))
    return torch.linalg.qr(sketch + FILLED * size * torch.eye(*sketch.shape[1:]).to(sketch))[0]


def variance(parts: list[Tensor], weights: Tensor, u: Tensor) -> Tensor:
    r"""Returns the variance of the weighted sum of traces, with shape (B,).

    It is the variance between the probes of a node. A single probe is compared with the cubic through four
    neighbours, which overestimates the variance if nodes are too few to follow the change. The result is widened
    if it rests on few nodes: with several probes, on those that contribute most of it; with single probes, which
    may agree with their neighbours by chance, on those with most room for noise.

    Arguments:
        parts: The parts of each trace, with shape (k, B, c).
        weights: The weights of the nodes, with shape (n, B).
        u: The nodes, with shape (n, B).
    """

    k = len(parts[0])
    if k > 1:
        found = torch.stack([part.sum(2).var(0) for part in parts]) * weights**2 / k
        return found.sum(0) * widening(freedom(found, k + 1)).square()
    found = _beside_neighbours([part[0] for part in parts], weights, u).sum(0)
    most = torch.stack([part[0].square().sum(1) for part in parts]) * weights**2
    return found * widening(freedom(most, 1)).square()


def _beside_neighbours(parts: list[Tensor], weights: Tensor, u: Tensor) -> Tensor:
    r"""The variances of single probes about the cubic through their neighbours, with shape (n - 4, B)."""

    found = []
    for j in range(2, len(parts) - 2):
        near = [j - 2, j - 1, j + 1, j + 2]
        shares = lagrange(u[near], u[j])[0].to(weights)[..., None]
        line = sum((share * parts[i] for i, share in zip(near, shares, strict=True)), 0)
        scale = 1 + shares.square().sum((0, 2))
        found.append(weights[j] ** 2 * (parts[j] - line).square().sum(1) / scale)
    return 2 * torch.stack(found) * len(parts) / (len(parts) - 4)
