r"""The linear parts with which the reverse of a process on blocks is solved.

For any :math:`\eta`, with :math:`w = (1 + \eta^2) / 2`, the equation of :mod:`scoresde.reverse.blocks` is

.. math:: du = \big( F u - w G G^T s(u) \big) dt + \eta \, G \, dw , \qquad s = \Sigma^{-1} (A D - u) .

For Gaussian data with the covariance :math:`l I`, states have the covariance :math:`S = l A A^T + \Sigma` and the
score :math:`-S^{-1} u`. What D adds to it is the remainder:

.. math:: du = \big( (F + w G G^T S^{-1}) \, u - w G G^T \Sigma^{-1} A C^{-T} N \big) dt + \eta \, G \, dw , \qquad
    N = C^T (D - l A^T S^{-1} u) ,

where :math:`C C^T = I + l A^T \Sigma^{-1} A` gives N its usual size. With :math:`S = L L^T`, the whitened state
:math:`L^{-1} u` of the linear part moves by

.. math:: \dot Y = \big( K + (w - \tfrac{1}{2}) Q \big) Y , \qquad Q = L^{-1} G G^T L^{-T} , \quad K = U - U^T ,

where U is the upper triangle of :math:`L^{-1} F L + Q / 2`, without the diagonal. So the flow turns whitened
states and does nothing else, and a single entry it leaves as it is. The law of the linear part keeps S, so the
noise of a step from s to t has the covariance :math:`S_t - \Psi S_s \Psi^T`.

As in :mod:`scoresde.reverse.linear_part`, l = 0 is the form of DPM-Solver++, and the variance of the data makes
steps of any size exact for isotropic Gaussian data. The form "noise", here :math:`l = \infty`, has the linear
part F alone, and N is the noise :math:`L^{-1} (u - A D)` with :math:`L L^T = \Sigma` and the weight
:math:`w G G^T L^{-T}`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solvers.problem import Linear
from solvers.shapes import Factor, blocks

from ..processes.blocks.process import BlockProcess
from ..processes.blocks.propagator import PIECES, Propagator


@dataclass(frozen=True)
class BlockFrame(Linear):
    r"""The linear part for a given variance, in the clock :math:`\lambda`.

    Arguments:
        process: The process.
        variance: The variance l, in [0, inf].
        eta: The amount of noise.
    """

    process: BlockProcess
    variance: float
    eta: float

    def decay(self, s: Tensor, t: Tensor) -> Tensor:
        return self._carried(self.process.bare_time(s), self.process.bare_time(t)).flatten(-3)

    def weight(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        process, here = self.process, self.process.bare_time(u)
        root, G = process.root(here), process.diffusion(here)
        if self.variance == math.inf:
            pulled = -G @ torch.linalg.solve_triangular(root, G, upper=False).mT
        else:
            pulled = G @ (G.mT @ torch.cholesky_solve(process.signal_matrix(here), root))
            pulled = torch.linalg.solve(self._unit(here).mT, pulled, left=False)
        rate = -(1 + self.eta**2) / 2 / process.slope(here)
        after = self._carried(here, process.bare_time(t))
        return (rate[..., None, None, None] * (after @ pulled)).flatten(-3)

    def noise_std(self, s: Tensor, t: Tensor) -> Tensor:
        start, end = self.process.bare_time(s), self.process.bare_time(t)
        root = self._root(end)
        if self.variance == math.inf:
            carried = torch.linalg.solve_triangular(
                root, self.process.transition(start, end) @ self._root(start), upper=False
            )
            inside = carried @ carried.mT - torch.eye(root.shape[-1], dtype=torch.float64)
            inside = self.eta**2 * inside
        else:
            turned = self._turned(start, end)
            inside = torch.eye(root.shape[-1], dtype=torch.float64) - turned @ turned.mT
        values, vectors = torch.linalg.eigh(inside)
        return (root @ (vectors * values.clamp(min=0).sqrt()[..., None, :])).flatten(-3)

    def factors(self, values: Tensor, x: Tensor) -> Sequence[Factor]:
        count, k = self._count, self.process.size
        return blocks(values.reshape(*values.shape[:-1], count, k, -1), x)

    def least(self, decay: Tensor) -> Tensor:
        k = self.process.size
        return torch.linalg.svdvals(decay.reshape(*decay.shape[:-1], self._count, k, k))[..., -1]

    def variable(self, name: str, t: Tensor) -> Tensor:
        if name == "noise_level":
            return torch.exp(-t)
        return self.process.bare_time(t) if name == "time" else super().variable(name, t)

    def remainder(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns a and b of :math:`N = a u + b D` at times of the process, matrices of j or k columns."""

        if self.variance == math.inf:
            a = torch.linalg.inv(self.process.root(t))
            return a, -a @ self.process.signal_matrix(t)
        unit = self._unit(t).mT
        return -unit @ self._guess(t), unit

    @cached_property
    def _count(self) -> int:
        t = torch.tensor(self.process.t_max, dtype=torch.float64)
        return self.process.covariance(t).shape[-3]

    def _covariance(self, t: Tensor) -> Tensor:
        A = self.process.signal_matrix(t)
        within = 0.0 if self.variance in (0, math.inf) else self.variance
        return within * (A @ A.mT) + self.process.covariance(t)

    def _root(self, t: Tensor) -> Tensor:
        if self.variance in (0, math.inf):
            return self.process.root(t)
        return torch.linalg.cholesky(self._covariance(t))

    def _unit(self, t: Tensor) -> Tensor:
        r"""The matrix C, with shape (\*, c, j, j)."""

        if self.variance == 0:
            A = self.process.signal_matrix(t)
            return torch.eye(A.shape[-1], dtype=torch.float64).expand(*A.shape[:-2], -1, -1)
        told = torch.linalg.solve_triangular(
            self.process.root(t), self.process.signal_matrix(t), upper=False
        )
        eye = torch.eye(told.shape[-1], dtype=torch.float64)
        return torch.linalg.cholesky(eye + self.variance * told.mT @ told)

    def _guess(self, t: Tensor) -> Tensor:
        r"""The data that the linear part assumes, :math:`l A^T S^{-1}`."""

        A = self.process.signal_matrix(t)
        return self.variance * torch.cholesky_solve(A, self._root(t)).mT

    def _carried(self, start: Tensor, end: Tensor) -> Tensor:
        r"""The matrices by which the linear part carries states, with shape (\*, c, k, k)."""

        if self.variance == math.inf:
            return self.process.transition(start, end)
        after = self._root(end) @ self._turned(start, end)
        return torch.linalg.solve_triangular(self._root(start), after, upper=False, left=False)

    def _turned(self, start: Tensor, end: Tensor) -> Tensor:
        r"""The matrices by which it carries whitened states."""

        start, end = torch.broadcast_tensors(start, end)
        if self.process.size == 1:
            if self.eta == 0:
                return torch.ones(*start.shape, 1, 1, 1, dtype=torch.float64)
            before, after = (
                2 * (self._root(t) / self.process.signal_matrix(t)[..., :1, :1]).log()
                for t in (start, end)
            )
            return torch.exp(self.eta**2 / 2 * (after - before))
        found = self._propagator(start.flatten().log(), end.flatten().log())
        return found.reshape(*start.shape, 1, *found.shape[-2:])

    @cached_property
    def _propagator(self) -> Propagator:
        low, high = math.log(self.process.t_min), math.log(self.process.t_max)
        edges = torch.linspace(low, high, PIECES + 1, dtype=torch.float64)
        return Propagator.of(self._rates, edges)

    def _rates(self, log_time: Tensor) -> Tensor:
        t = log_time.exp()
        root = self._root(t)
        spread = torch.linalg.solve_triangular(root, self.process.diffusion(t), upper=False)
        Q = spread @ spread.mT
        moved = torch.linalg.solve_triangular(
            root, self.process.drift_matrix(t) @ root, upper=False
        )
        U = torch.triu(moved + Q / 2, 1)
        rates = U - U.mT + self.eta**2 / 2 * Q
        return (t[:, None, None, None] * rates)[:, 0]
