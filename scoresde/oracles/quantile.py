r"""An exact score model with an exact flow: rotated products of mixtures in one dimension.

In one dimension, the probability flow transports quantiles,

.. math:: x_s = F_s^{-1} (F_t (x_t)) ,

since it preserves order and mass. In a basis with independent coordinates, this holds for each of them, so
trajectories, latents and likelihoods are known in any dimension.
"""

import math
from functools import cached_property

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array
from solvers.network_calls import count_call
from solvers.noise.brownian import DATA, DATA_NOISE, keyed_normal, keyed_uniform

from ..doors.data import as_floats
from ..models.checks import check_shape
from ..models.data_moments import Moments
from ..processes.process import Process
from .known_data import check_points, known_process
from .mixture import Oracle


@checked
class QuantileOracle(Oracle):
    r"""Creates the exact score model of a rotated product of one-dimensional mixtures.

    Arguments:
        means: The means of the components of each coordinate, with shape (D, K).
        stds: Their standard deviations, with shape (D, K).
        weights: Their probabilities, with shape (D, K). By default, they are equal.
        rotation: An orthogonal matrix Q with shape (D, D), for data :math:`x = Q y`. By default, there is none.
        process: The process. By default, `EDM()`.

    Examples:
        >>> product = ss.QuantileOracle(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.5]]))
        >>> product.denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[0.5000, 1.0000]])
    """

    def __init__(
        self,
        means: Array,
        stds: Array,
        weights: Array | None = None,
        rotation: Array | None = None,
        process: Process | None = None,
    ) -> None:
        means, stds = as_floats("means", means, least=2), as_floats("stds", stds, least=2)
        weights = None if weights is None else as_floats("weights", weights, least=2)
        rotation = None if rotation is None else as_floats("rotation", rotation, least=2)
        super().__init__()
        check_points("means", means, least=2)
        weights = torch.ones_like(means) if weights is None else weights
        rotation = torch.eye(len(means)).to(means) if rotation is None else rotation
        for name, value, shape in (
            ("stds", stds, means.shape),
            ("weights", weights, means.shape),
            ("rotation", rotation, (len(means), len(means))),
        ):
            if tuple(value.shape) != tuple(shape):
                raise ValueError(
                    f"{name} must have shape {tuple(shape)}, not {tuple(value.shape)}."
                )
        if (rotation @ rotation.T - torch.eye(len(means)).to(means)).abs().max() > 1e-5:
            raise ValueError("rotation must be orthogonal: Q Q^T is not the identity.")
        for name, value in (("stds", stds), ("weights", weights)):
            if not bool((value > 0).all() and value.isfinite().all()):
                raise ValueError(f"{name} must be positive and finite, but are {value.tolist()}.")
        self.process, self.shape = known_process(process), (len(means),)
        self.means, self.variances, self.rotation = map(
            torch.nn.Buffer, (means, stds.square(), rotation)
        )
        self.log_weights = torch.nn.Buffer((weights / weights.sum(1, keepdim=True)).log())
        share = self.log_weights.double().exp()
        square = (share * (means.double().square() + stds.double().square())).sum(1).mean()
        self._know(square, stds.square().min())

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        count_call()
        alpha, sigma = (scale[..., None] for scale in self._scales(x, t))
        y = (x @ self.rotation.to(x))[..., None]
        means, variances = self.means.to(x), self.variances.to(x)
        total = alpha**2 * variances + sigma**2
        clean = means + alpha * variances / total * (y - alpha * means)
        weights = self._log_joint(y, alpha, total).softmax(-1)
        return (weights * clean).sum(-1) @ self.rotation.to(x).T

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (scale[..., None] for scale in self._scales(x, t))
        y = (x @ self.rotation.to(x))[..., None]
        total = alpha**2 * self.variances.to(x) + sigma**2
        return self._log_joint(y, alpha, total).logsumexp(-1).sum(-1)

    @cached_property
    def moments(self) -> Moments:
        r"""The mean and covariance of the data."""

        weights = self.log_weights.double().exp()
        mean = (weights * self.means).sum(1)
        variances = (weights * (self.variances + (self.means - mean[:, None]) ** 2)).sum(1)
        basis = self.rotation.double()
        return Moments(basis @ mean, basis, variances)

    def data(self, count: int, *, seed: int = 0) -> Tensor:
        index, (d, _) = torch.arange(count, device=self.means.device), self.means.shape
        u = keyed_uniform(seed, index, DATA, 0, d)
        k = (u[..., None] > self.log_weights.double().exp().cumsum(1)).sum(-1)
        k = k.clamp(max=self.means.shape[1] - 1).T
        z = keyed_normal(seed, index, DATA_NOISE, 0, d).to(self.means)
        y = self.means.gather(1, k).T + self.variances.gather(1, k).T.sqrt() * z
        return y @ self.rotation.T

    def flow(self, x: Tensor, start: float, stop: float) -> Tensor:
        r"""Returns states transported by the probability flow from one time to another.

        Arguments:
            x: States at `start`, with shape (B, D).
            start: The time of `x`.
            stop: The time of the result.
        """

        check_shape(self, tuple(x.shape[1:]), "x")
        start, stop = self._span(start, stop).tolist()
        rotation = self.rotation.double()
        y = x.double() @ rotation
        lower, upper = self._log_tails(y, start)
        return (self._quantile(lower, upper, stop) @ rotation.T).to(x)

    def _quantile(self, lower: Tensor, upper: Tensor, t: float) -> Tensor:
        r"""The points with the given log-probabilities below and above, by bisection."""

        alpha, sigma = self.process.scales(torch.tensor(t, dtype=torch.float64))
        reach = 40 * (alpha**2 * self.variances.double().max() + sigma**2).sqrt()
        low = (alpha * self.means.double()).amin(1).expand_as(lower) - reach
        high = (alpha * self.means.double()).amax(1).expand_as(lower) + reach
        for _ in range(90):
            middle = (low + high) / 2
            below, above = self._log_tails(middle, t)
            # each half of the distribution is compared in its small tail
            left = torch.where(lower < upper, below < lower, above > upper)
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return (low + high) / 2

    def _log_tails(self, y: Tensor, t: float) -> tuple[Tensor, Tensor]:
        r"""The log-probabilities below and above each coordinate."""

        alpha, sigma = self.process.scales(torch.tensor(t, dtype=torch.float64))
        std = (alpha**2 * self.variances.double() + sigma**2).sqrt()
        z = (y[..., None] - alpha * self.means.double()) / std
        tails = (torch.special.log_ndtr(sign * z) + self.log_weights.double() for sign in (1, -1))
        lower, upper = (tail.logsumexp(-1) for tail in tails)
        return lower, upper

    def _log_joint(self, y: Tensor, alpha: Tensor, variance: Tensor) -> Tensor:
        square = (y - alpha * self.means.to(y)) ** 2 / variance
        return self.log_weights.to(y) - (square + torch.log(2 * math.pi * variance)) / 2
