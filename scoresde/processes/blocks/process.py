r"""Processes whose drift and diffusion are matrices on blocks of the state.

Any linear process :math:`du = F(t) \, u \, dt + G(t) \, dw` has the transition kernel

.. math:: p(u_t \mid x_0) = \mathcal{N}(u_t \mid A_t x_0, \Sigma_t) , \qquad
    \dot A = F A , \quad \dot \Sigma = F \Sigma + \Sigma F^T + G G^T .

The state may have more entries than the data, such as velocities. The Fisher information of the data in the state,
:math:`A^T \Sigma^{-1} A`, falls in time for every process, so

.. math:: \lambda = \tfrac{1}{2} \log \tfrac{1}{d} \operatorname{tr} A^T \Sigma^{-1} A , \qquad
    \dot \lambda = - \frac{|G^T \Sigma^{-1} A|^2}{2 \, |L^{-1} A|^2} , \quad \Sigma = L L^T ,

is a clock of all of them. It is :math:`\log (\alpha / \sigma)` where the matrices are numbers, and
:math:`e^{-\lambda}` is the deviation with which the state tells the data: the noise level.

References:
    | Applied Stochastic Differential Equations (Särkkä and Solin, 2019), section 6.1
    | https://doi.org/10.1017/9781108186735
"""

import math
from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from solvers.noise.brownian import AUXILIARY, keyed_normal
from solvers.shapes import Blocks

from ...doors.data import as_state
from ...doors.warning import warn
from ..once import once
from ..process import CHECKED, PRIOR_GAP, Pair, Process

NEWTON = 2  # iterations from an interpolated time


class BlockProcess(Process):
    r"""Abstract process with matrices in place of :math:`\alpha` and :math:`\sigma`.

    A block holds k entries of the state and j of the data. Matrices have shape (\*, c, k, k) for times with shape
    (\*), where c is the number of blocks, or 1 if all blocks share one matrix. They act along the axes of
    :meth:`to_axes`.

    Attributes:
        size: The number k.
        data_size: The number j.

    Examples:
        >>> process = ss.CLD()
        >>> process.size, process.data_size  # position and velocity
        (2, 1)
        >>> process.perturb(torch.ones(1, 3), torch.tensor([0.5]), torch.zeros(1, 6)).shape
        torch.Size([1, 6])
    """

    has_scales: ClassVar[bool] = False
    grid: ClassVar[str] = "log_snr"
    size: int
    data_size: int

    @abstractmethod
    def signal_matrix(self, t: Tensor) -> Tensor:
        r"""Returns A, with shape (\*, c, k, j)."""

    @abstractmethod
    def covariance(self, t: Tensor) -> Tensor:
        r"""Returns :math:`\Sigma`, with shape (\*, c, k, k)."""

    @abstractmethod
    def drift_matrix(self, t: Tensor) -> Tensor:
        r"""Returns F, with shape (\*, c, k, k)."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        r"""Returns G, with shape (\*, c, k, k)."""

    @abstractmethod
    def transition(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns :math:`\Phi(s, t)`, which carries states of the drift from s to t, with shape (\*, c, k, k)."""

    def to_axes(self, x: Tensor) -> Tensor:
        r"""Returns states or data along the axes on which the matrices act, with the same shape."""

        return x

    def from_axes(self, x: Tensor) -> Tensor:
        r"""Returns the inverse of :meth:`to_axes`."""

        return x

    def times(self, matrix: Tensor, x: Tensor) -> Tensor:
        r"""Returns the product of a matrix, for one time or one per row, and states or data with shape (B, \*)."""

        self._check_parts(x.shape, matrix.shape[-1])
        return self.from_axes(Blocks(matrix).of(self.to_axes(x)))

    def root(self, t: Tensor) -> Tensor:
        r"""Returns the lower triangular L with :math:`L L^T = \Sigma`, with shape (\*, c, k, k)."""

        return torch.linalg.cholesky(self.covariance(t))

    def state_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        r"""Returns the shape (B, \*) of states of data with the given shape."""

        self._check_parts(shape, self.data_size)
        return shape[0], shape[1] * self.size // self.data_size, *shape[2:]

    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        r"""Returns the shape (B, \*) of the data of states with the given shape."""

        self._check_parts(shape, self.size)
        return shape[0], shape[1] * self.data_size // self.size, *shape[2:]

    def _check_parts(self, shape: tuple[int, ...], parts: int) -> None:
        if len(shape) < 2 or shape[1] % parts:
            of = "states" if parts == self.size > self.data_size else "data"
            raise ValueError(
                f"{of} of {type(self).__name__} must have a first axis of {parts} equal parts, but the shape of a "
                f"sample is {tuple(shape[1:])}."
            )

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(
            f"{type(self).__name__} acts on blocks of the state by matrices and has no numbers alpha and sigma; "
            "this needs a process that has them, such as ss.VP(). Its matrices are those of signal_matrix, "
            "covariance and transition."
        )

    def log_snr(self, t: Tensor) -> Tensor:
        told = torch.linalg.solve_triangular(self.root(t), self.signal_matrix(t), upper=False)
        return told.square().sum((-1, -2)).mean(-1).div(self.data_size).log() / 2

    def slope(self, t: Tensor) -> Tensor:
        r"""Returns :math:`\dot \lambda`, with the shape of `t`."""

        root, A = self.root(t), self.signal_matrix(t)
        told = torch.linalg.solve_triangular(root, A, upper=False)
        pull = torch.linalg.solve_triangular(root.mT, told, upper=True)
        lost = (self.diffusion(t).mT @ pull).square().sum((-1, -2)).mean(-1)
        return -lost / told.square().sum((-1, -2)).mean(-1) / 2

    def time(self, log_snr: Tensor) -> Tensor:
        times, known = self._levels
        wanted = log_snr.double()
        piece = torch.searchsorted(-known, -wanted.contiguous()).clamp(1, len(known) - 1)
        low, high = times[piece - 1], times[piece]
        share = (wanted - known[piece - 1]) / (known[piece] - known[piece - 1])
        t = torch.exp(torch.lerp(low, high, share.clamp(0, 1)))
        for _ in range(NEWTON):
            t = t - (self.log_snr(t) - wanted) / self.slope(t)
            t = torch.minimum(torch.maximum(t, low.exp()), high.exp())
        return t.clamp(self.t_min, self.t_max)

    @cached_property
    def _levels(self) -> Pair:
        r"""The logarithms of some times, and the log-SNRs there."""

        low, high = math.log(self.t_min), math.log(self.t_max)
        times = torch.linspace(low, high, CHECKED, dtype=torch.float64)
        return times, self.log_snr(times.exp().clamp(self.t_min, self.t_max))

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return self.times(self.drift_matrix(t.double()), x)

    def spread(self, x: Tensor, t: Tensor) -> Tensor:
        G = self.diffusion(t.double())
        return self.times(G @ G.mT, x)

    def perturb(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        r"""Returns :math:`u_t = A x + L z`, with the shape of `z`.

        Arguments:
            x: Clean data, with shape (B, \*).
            t: The time, with shape () or (B,).
            z: Standard noise, with the shape of states.
        """

        x, z, t = as_state("x", x), as_state("z", z), torch.as_tensor(t).double().cpu()
        if z.shape != (wanted := self.state_shape(tuple(x.shape))):
            raise ValueError(
                f"z must have the shape of states of {type(self).__name__}, {tuple(wanted)} for this data, but "
                f"has {tuple(z.shape)}."
            )
        return self.times(self.signal_matrix(t), x) + self.times(self.root(t), z)

    def enter(self, x: Tensor, t: Tensor, whole: bool = False) -> Tensor:
        r"""Returns the states of data at a time: :math:`A x`, with auxiliary entries drawn from their prior.

        Auxiliary entries of the i-th row depend on i alone.

        Arguments:
            x: Data, with shape (B, \*), or whole states.
            t: The time, with shape () or (B,).
            whole: Whether these are states already, in units of data.
        """

        if self.size == self.data_size:
            return self.times(self.signal_matrix(t), x)
        if whole:
            return x
        state = self.times(self.signal_matrix(t), x)
        index = torch.arange(len(x), device=x.device)
        z = keyed_normal(0, index, AUXILIARY, 0, state[0].numel()).to(x).reshape(state.shape)
        return state + self.times(self.auxiliary(t), z)

    def auxiliary(self, t: Tensor) -> Tensor:
        r"""Returns the root of the covariance with which auxiliary entries are drawn, 0 for those of the data."""

        inside = self.covariance(t).clone()
        inside[..., : self.data_size, :] = 0
        inside[..., :, : self.data_size] = 0
        inside[..., self.data_size :, self.data_size :] = torch.linalg.cholesky(
            inside[..., self.data_size :, self.data_size :]
        )
        return inside

    def leave(self, u: Tensor, t: Tensor) -> Tensor:
        r"""Returns the data of states at a time, as if they had no noise; auxiliary entries are left out."""

        inverse = torch.linalg.pinv(self.signal_matrix(t))
        if self.size > self.data_size:  # by the entries of the data alone
            own = torch.linalg.inv(self.signal_matrix(t)[..., : self.data_size, :])
            inverse = torch.cat([own, torch.zeros_like(inverse[..., self.data_size :])], -1)
        return self.times(inverse, u)

    def score_of(self, u: Tensor, denoised: Tensor, t: Tensor) -> Tensor:
        r"""Returns the score :math:`\Sigma^{-1} (A D - u)`, with the shape of states."""

        apart = self.times(self.signal_matrix(t), denoised) - u
        return self.times(torch.cholesky_inverse(self.root(t)), apart)

    def noise_of(self, u: Tensor, denoised: Tensor, t: Tensor) -> Tensor:
        r"""Returns the noise :math:`L^{-1} (u - A D)`, with the shape of states."""

        apart = u - self.times(self.signal_matrix(t), denoised)
        return self.times(torch.linalg.inv(self.root(t)), apart)

    @once
    def prior_std(self) -> float:
        r"""Returns the root mean square of the prior, at `t_max`."""

        return float(self._last().square().sum((-1, -2)).mean().div(self.size).sqrt())

    def deviations(self, z: Tensor) -> Tensor:
        return self.times(self._last(), z)

    def prior_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.state_shape(shape)

    def standardised(self, z: Tensor) -> Tensor:
        return self.times(torch.linalg.inv(self._last()), z)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        z, root = as_state("z", z), self._last()
        logs = root.diagonal(dim1=-2, dim2=-1).log().sum(-1).mean() / self.size
        square = self.standardised(z.double()).flatten(1).square().sum(1)
        return -square / 2 - z[0].numel() * (logs + math.log(2 * math.pi) / 2)

    def _last(self) -> Tensor:
        return self.root(torch.tensor(self.t_max, dtype=torch.float64))

    def _check(self) -> None:
        self._check_ends()
        t = torch.linspace(self.t_min, self.t_max, CHECKED // 16, dtype=torch.float64)
        covariance = self.covariance(t)
        least = torch.linalg.eigvalsh(covariance).amin((-1, -2))
        if not bool((least > 0).all()):
            where = float(t[~(least > 0)][0])
            raise ValueError(
                f"the noise of {type(self).__name__} must reach all entries of the state, but its covariance is "
                f"singular at t={where:.4g}; raise t_min, or let G or the drift reach them."
            )
        if not bool((self.log_snr(t).diff() < 0).all()):
            raise ValueError(
                f"the information of {type(self).__name__} about the data must fall in time; G must not be 0."
            )
        gap = self.prior_gap()
        if gap > PRIOR_GAP:
            warn(
                f"at t_max={self.t_max:.4g}, the prior is {gap:.3g} nats per dimension from the noised data (of "
                "unit variance): samples and likelihoods will be biased; add more noise or raise t_max."
            )


def eye(t: Tensor, size: int) -> Tensor:
    r"""Returns unit matrices of one kind of block, with shape (\*, 1, k, k)."""

    return torch.eye(size, dtype=torch.float64).expand(*t.shape, 1, size, size)
