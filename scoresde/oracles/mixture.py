r"""Exact score models: data with known distributions, for tests of solvers.

Every oracle has its denoised data and log-density at any time in closed form.
"""

import math
from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from solvers.doors.signatures import Door, checked, with_doors
from solvers.doors.values import Array, as_number
from solvers.network_calls import count_call
from solvers.noise.brownian import DATA, DATA_NOISE, keyed_normal, keyed_uniform

from ..doors.data import as_data, as_floats, as_seed, as_size, as_state, as_times, labels_of
from ..models.autocast import exempt
from ..models.checks import check_shape
from ..models.conditions import as_condition
from ..models.data_moments import Moments, from_covariance, moments
from ..models.score_model import ScoreModel
from ..models.times import check_time
from ..processes.blocks.process import BlockProcess
from ..processes.process import Process
from .block_law import check_states, components, data_log_prob
from .known_data import axes_of, check_labels, check_points, known_process

EXACT: dict[str, dict[str, Door]] = {
    "denoise": {"x": as_state, "t": as_times},
    "log_prob": {"x": as_data, "t": as_times},
    "data": {"count": as_size, "seed": as_seed},
    "flow": {"x": as_data},
}  # the functions of an oracle, and the checks of their arguments


class Oracle(ScoreModel):
    r"""Abstract exact score model.

    The functions of a subclass get the argument checks of all oracles, and compute in the dtype of the state,
    whatever autocast is active.

    Examples:
        >>> isinstance(model, ss.Oracle)
        True
        >>> model.data(5).shape
        torch.Size([5, 2])
    """

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        with_doors(cls, EXACT)
        for name in EXACT:
            if name in vars(cls):
                setattr(cls, name, exempt(vars(cls)[name]))

    @abstractmethod
    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns :math:`\log p_t(x)` in nats, with shape (B,).

        Arguments:
            x: Noisy data, with shape (B, *).
            t: The time, with shape () or (B,).
        """

    @abstractmethod
    def data(self, count: int, *, seed: int = 0) -> Tensor:
        r"""Draws clean data, with shape (count, *)."""

    def log_density(self, x: Tensor, t_min: float) -> Tensor:
        r"""Returns the log-density of :math:`x_0 + (\sigma / \alpha) z` in nats, with shape (B,).

        Arguments:
            x: Data, with shape (B, *).
            t_min: The time that gives the noise level.
        """

        x, t_min = as_data("x", x), self.process.check_inside("t_min", t_min)
        t = torch.tensor(t_min, dtype=torch.float64)
        alpha = self.process.scales(t)[0]
        return self.log_prob(alpha.to(x) * x, t) + x[0].numel() * alpha.log()

    def _know(self, square: Tensor, least: Tensor | float) -> None:
        r"""Stores the mean square of the data, and the smallest variance of its components."""

        self.data_std = self.data_scale = math.sqrt(square)
        self.finest = math.sqrt(least)

    def _scales(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The scales of the rows, with shape (B, 1), in the state's dtype."""

        check_shape(self, tuple(x.shape[1:]), "x")
        t = check_time(self.process, t, x).expand(len(x))
        alpha, sigma = self.process.scales(t)
        return alpha.to(x)[:, None], sigma.to(x)[:, None]

    def _label(self, label: Tensor, x: Tensor) -> Tensor:
        r"""The labels of the rows, with shape (B, 1)."""

        label = as_condition("label", label)
        if len(label) not in (1, len(x)):
            raise ValueError(f"label must have leading size {len(x)} or 1, but has {len(label)}.")
        if label.device.type == "cpu":  # on other devices, this would wait
            self.check_condition("label", label)
        return label.to(x.device)[:, None]

    def _span(self, start: float, stop: float) -> Tensor:
        r"""Two times, inside the domain, in float64."""

        inside = self.process.check_inside
        return torch.tensor([inside("start", start), inside("stop", stop)], dtype=torch.float64)


@checked
class MixtureOracle(Oracle):
    r"""Creates the exact score model of a Gaussian mixture.

    With responsibilities :math:`r_k(x)` at time t, and covariances
    :math:`\Sigma_k = U_k \operatorname{diag}(l_k) U_k^T`,

    .. math:: D(x) = \sum_k r_k \Big( m_k + U_k \frac{\alpha \, l_k}{\alpha^2 l_k + \sigma^2}
        U_k^T (x - \alpha m_k) \Big) .

    Arguments:
        means: The means, with shape (K, *).
        covariances: The covariances, with shape (K, D, D), or standard deviations of isotropic
            components, with shape () or (K,).
        weights: The probabilities of the components, with shape (K,). By default, they are equal.
        process: The process. By default, `EDM()`.

    Condition:
        label: The component that the data belongs to, with shape (B,).

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> pair.denoise(torch.zeros(1, 1), torch.tensor([0.5]), label=torch.tensor([1]))
        tensor([[0.5000]])
    """

    conditions: tuple[str, ...] = ("label",)

    def __init__(
        self,
        means: Array,
        covariances: Array | float,
        weights: Array | None = None,
        process: Process | None = None,
    ) -> None:
        means = as_data("means", means)
        covariances = as_floats("covariances", covariances, dtype=means.dtype)
        weights = None if weights is None else as_floats("weights", weights, least=1)
        super().__init__()
        check_points("means", means, least=2)
        self.process, self.shape = known_process(process), tuple(means.shape[1:])
        flat = means.flatten(1)
        values, vectors = axes_of(flat, covariances)
        weights = torch.ones(len(flat)).to(flat) if weights is None else weights.to(flat)
        if weights.shape != flat.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {len(flat)} positive numbers.")
        self.means, self.values, self.vectors = map(torch.nn.Buffer, (flat, values, vectors))
        self.log_weights = torch.nn.Buffer((weights / weights.sum()).log())
        share = (weights / weights.sum()).double()
        self._know(share @ (flat.double().square() + values.double()).mean(1), values.min())

    def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        count_call()
        if isinstance(self.process, BlockProcess):
            found, log_joint = self._on_blocks(self.process, x, t)
            share = self._of_label(log_joint, label, x).softmax(1)
            means = torch.einsum("bk,bkd->bd", share, found)
            return means.to(x).reshape(self.process.data_shape(x.shape))
        alpha, sigma = self._scales(x, t)
        z, log_joint = self._project(x, alpha, sigma)
        log_joint = self._of_label(log_joint, label, x)
        values = self.values.to(x)
        gain = alpha[..., None] * values / (alpha[..., None] ** 2 * values + sigma[..., None] ** 2)
        means = self.means.to(x) + torch.einsum("kde,bke->bkd", self.vectors.to(x), gain * z)
        return torch.einsum("bk,bkd->bd", log_joint.softmax(1), means).reshape(x.shape)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        if isinstance(self.process, BlockProcess):
            return self._on_blocks(self.process, x, t)[1].logsumexp(1).to(x)
        return self._project(x, *self._scales(x, t))[1].logsumexp(1)

    def log_density(self, x: Tensor, t_min: float) -> Tensor:
        if not isinstance(self.process, BlockProcess):
            return super().log_density(x, t_min)
        x, t_min = as_data("x", x), self.process.check_inside("t_min", t_min)
        t, means = torch.tensor(t_min, dtype=torch.float64), self.means.reshape(-1, *x.shape[1:])
        found = data_log_prob(self.process, means, self._covariances(), x, t)
        return (found + self.log_weights.to(found)).logsumexp(1)

    def _covariances(self) -> Tensor:
        return self.vectors * self.values[:, None] @ self.vectors.mT

    def _of_label(self, log_joint: Tensor, label: Tensor | None, x: Tensor) -> Tensor:
        r"""The joint log-densities, without the components of other labels."""

        if label is None:
            return log_joint
        other = torch.arange(len(self.means), device=x.device) != self._label(label, x)
        return log_joint.masked_fill(other, -math.inf)

    def _on_blocks(self, process: BlockProcess, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The denoised data of each component, (B, K, D), and its joint log-density, (B, K)."""

        means = self.means.reshape(-1, *(self.shape or ()))
        check_states(process, x, tuple(means.shape[1:]))
        time = check_time(process, t, x)
        found, log_prob = components(process, means, self._covariances(), x, time)
        return found, log_prob + self.log_weights.to(log_prob)

    def data(self, count: int, *, seed: int = 0) -> Tensor:
        index = torch.arange(count, device=self.means.device)
        u = keyed_uniform(seed, index, DATA, 0, 1)[:, 0]
        k = torch.searchsorted(self.log_weights.double().exp().cumsum(0), u).clamp(
            max=len(self.means) - 1
        )
        z = keyed_normal(seed, index, DATA_NOISE, 0, self.means.shape[1]).to(self.means)
        x = self.means[k]
        for j in k.unique().tolist():  # one by one, since axes for every sample take much memory
            rows = k == j
            x[rows] += (self.values[j].sqrt() * z[rows]) @ self.vectors[j].T
        return x.reshape(count, *(self.shape or ()))

    @cached_property
    def moments(self) -> Moments:
        r"""The mean and covariance of the data."""

        weights = self.log_weights.double().exp()
        means, vectors = self.means.double(), self.vectors.double()
        mean = weights @ means
        inside = torch.einsum("k,kde,ke,kfe->df", weights, vectors, self.values.double(), vectors)
        between = (weights * (means - mean).T) @ (means - mean)
        return from_covariance(mean.reshape(self.shape or (-1,)), inside + between)

    def check_condition(self, name: str, value: Tensor) -> None:
        check_labels(value, len(self.means))

    def _project(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""The deviation along each component's axes, (B, K, D), and its joint log-density, (B, K)."""

        alpha, sigma = alpha[..., None], sigma[..., None]
        deviation = x.flatten(1)[:, None] - alpha * self.means.to(x)
        z = torch.einsum("kde,bkd->bke", self.vectors.to(x), deviation)
        variance = alpha**2 * self.values.to(x) + sigma**2
        log_prob = -(z**2 / variance + torch.log(2 * math.pi * variance)).sum(-1) / 2
        return z, log_prob + self.log_weights.to(x)


@checked
class GaussianOracle(MixtureOracle):
    r"""Creates the exact score model of a Gaussian.

    Its flow is :math:`x_s = \alpha_s m + U \sqrt{(\alpha_s^2 l + \sigma_s^2) / (\alpha_t^2 l +
    \sigma_t^2)} \, U^T (x_t - \alpha_t m)`.

    Arguments:
        mean: The mean, with shape (*).
        covariance: The covariance, with shape (D, D), or the standard deviation.
        process: The process. By default, `EDM()`.

    Examples:
        >>> model = ss.GaussianOracle(torch.zeros(2), 0.5)
        >>> model.denoise(torch.ones(1, 2), torch.tensor([0.5]))  # 0.25 / (0.25 + 0.25)
        tensor([[0.5000, 0.5000]])
    """

    conditions = ()

    def __init__(
        self,
        mean: Array,
        covariance: Array | float,
        process: Process | None = None,
    ) -> None:
        mean = as_floats("mean", mean, least=1)
        covariance = as_floats("covariance", covariance, dtype=mean.dtype)
        check_points("mean", mean, least=1)
        d, shape = mean.numel(), tuple(covariance.shape)
        if shape not in ((), (1,), (d, d)):
            raise ValueError(
                f"covariance must be one standard deviation or a matrix of shape {(d, d)}, but has shape {shape}; "
                "of one standard deviation per entry, pass torch.diag(std.flatten() ** 2)."
            )
        super().__init__(
            mean[None], covariance[None] if covariance.ndim else covariance, None, process
        )

    def flow(self, x: Tensor, start: float, stop: float) -> Tensor:
        r"""Returns states transported by the probability flow from one time to another.

        Arguments:
            x: States at `start`, with shape (B, *).
            start: The time of `x`.
            stop: The time of the result.
        """

        check_shape(self, tuple(x.shape[1:]), "x")
        times = self._span(start, stop)
        alpha, sigma = (scale.to(x) for scale in self.process.scales(times))
        mean, values, vectors = (b[0].to(x) for b in (self.means, self.values, self.vectors))
        variance = alpha[:, None] ** 2 * values + sigma[:, None] ** 2
        z = (x.flatten(1) - alpha[0] * mean) @ vectors * (variance[1] / variance[0]).sqrt()
        return (alpha[1] * mean + z @ vectors.T).reshape(x.shape)


@checked
class KernelOracle(Oracle):
    r"""Creates the exact score model of a Gaussian kernel density: a mixture with one component per data point.

    .. math:: D(x) = \sum_i r_i \Big( y_i + \frac{\alpha h^2}{\alpha^2 h^2 + \sigma^2}
        (x - \alpha y_i) \Big)

    Arguments:
        data: The data :math:`y`, with shape (N, *).
        width: The standard deviation h of the kernel.
        process: The process. By default, `EDM()`.
        labels: The classes of the data, with shape (N,), to make the label a condition.

    Condition:
        label: The class that the data belongs to, with shape (B,).

    Examples:
        >>> kernel = ss.KernelOracle(torch.tensor([[0.0], [2.0]]), 0.1)
        >>> kernel.denoise(torch.ones(1, 1), torch.tensor([1.0]))
        tensor([[1.]])
    """

    def __init__(
        self,
        data: Array,
        width: float,
        process: Process | None = None,
        labels: Array | None = None,
    ) -> None:
        data, width = as_data("data", data), as_number("width", width)
        labels = None if labels is None else labels_of(labels, len(data))
        super().__init__()
        if not 0 < width < math.inf:
            raise ValueError(f"width must be a positive number, but is {width}.")
        check_points("data", data, least=1)
        self.process, self.width = known_process(process), width
        self.shape = tuple(data.shape[1:])
        self.points = torch.nn.Buffer(data.flatten(1))
        self.squares = torch.nn.Buffer(self.points.square().sum(1))
        self.labels = None if labels is None else torch.nn.Buffer(labels)
        self.conditions = () if labels is None else ("label",)
        self._know(self.points.double().square().mean() + width**2, width**2)

    def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        count_call()
        alpha, sigma = self._scales(x, t)
        variance = alpha**2 * self.width**2 + sigma**2
        log_joint = self._log_joint(x, alpha, variance)
        if label is not None and self.labels is not None:
            log_joint = log_joint.masked_fill(self.labels != self._label(label, x), -math.inf)
        mean = log_joint.softmax(1) @ self.points.to(x)
        gain = alpha * self.width**2 / variance
        return (mean + gain * (x.flatten(1) - alpha * mean)).reshape(x.shape)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        wide = x.double()  # nearly cancelling squares are divided by the square of the width
        alpha, sigma = self._scales(wide, t)
        variance = alpha**2 * self.width**2 + sigma**2
        d = self.points.shape[1]
        square = wide.flatten(1).square().sum(1) / variance[:, 0]
        points = self.points.double()
        products = (alpha * wide.flatten(1)) @ points.T - alpha**2 * points.square().sum(1) / 2
        joint = (products / variance).logsumexp(1) - math.log(len(points))
        found = joint - square / 2 - d / 2 * torch.log(2 * math.pi * variance[:, 0])
        return found.to(x.dtype)

    def data(self, count: int, *, seed: int = 0) -> Tensor:
        index = torch.arange(count, device=self.points.device)
        i = (keyed_uniform(seed, index, DATA, 0, 1)[:, 0] * len(self.points)).long()
        z = keyed_normal(seed, index, DATA_NOISE, 0, self.points.shape[1]).to(self.points)
        return (self.points[i] + self.width * z).reshape(count, *(self.shape or ()))

    @cached_property
    def moments(self) -> Moments:
        r"""The mean and covariance of the data."""

        known = moments(self.points)
        mean = known.mean.reshape(self.shape or (-1,))
        return Moments(mean, known.basis, known.variances + self.width**2)

    def check_condition(self, name: str, value: Tensor) -> None:
        if self.labels is not None:
            check_labels(value, int(self.labels.max()) + 1)

    def _log_joint(self, x: Tensor, alpha: Tensor, variance: Tensor) -> Tensor:
        r"""The log-densities of the components up to a common constant, with shape (B, N)."""

        products = (alpha * x.flatten(1)) @ self.points.to(x).T
        return (products - alpha**2 * self.squares.to(x) / 2) / variance
