r"""Processes whose matrices are diagonal along fixed axes: a signal and a noise for each coordinate."""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor

from ...doors.amounts import positive
from ..process import Process
from ..standard import VP
from .process import BlockProcess

SYMMETRY = 1e-6  # relative, of a covariance


class DiagonalProcess(BlockProcess):
    r"""Abstract process with scales :math:`\alpha_k, \sigma_k` of coordinates along orthonormal axes.

    Its clock is the log-SNR of another process.

    Attributes:
        process: The other process.
    """

    size: int = 1
    data_size: int = 1
    process: Process

    @abstractmethod
    def coordinate_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\alpha_k` and :math:`\sigma_k`, with shape (\*, c)."""

    @abstractmethod
    def coordinate_rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\partial_t \log \alpha_k` and :math:`\partial_t \lambda_k`, with shape (\*, c)."""

    def log_snr(self, t: Tensor) -> Tensor:
        return self.process.bare_log_snr(t)

    def slope(self, t: Tensor) -> Tensor:
        return self.process.bare_rates(t.double())[1]

    def time(self, log_snr: Tensor) -> Tensor:
        return self.process.bare_time(log_snr)

    def signal_matrix(self, t: Tensor) -> Tensor:
        return self.coordinate_scales(t.double())[0][..., None, None]

    def covariance(self, t: Tensor) -> Tensor:
        return self.coordinate_scales(t.double())[1].square()[..., None, None]

    def root(self, t: Tensor) -> Tensor:
        return self.coordinate_scales(t.double())[1][..., None, None]

    def drift_matrix(self, t: Tensor) -> Tensor:
        return self.coordinate_rates(t.double())[0][..., None, None]

    def diffusion(self, t: Tensor) -> Tensor:
        sigma, slope = self.coordinate_scales(t)[1], self.coordinate_rates(t.double())[1]
        return (sigma * (-2 * slope).sqrt())[..., None, None]

    def transition(self, s: Tensor, t: Tensor) -> Tensor:
        return self.signal_matrix(t) / self.signal_matrix(s)


def _check_inner(process: Process) -> None:
    if not isinstance(process, Process) or not process.has_scales:
        raise TypeError(
            f"process must be one with numbers alpha and sigma, such as ss.VP(), but is {process!r}."
        )


@checked
@dataclass(frozen=True, eq=False)
class CorrelatedNoise(DiagonalProcess):
    r"""Creates a process whose noise has a given covariance C, :math:`x_t = \alpha x_0 + \sigma C^{1/2} z`.

    Along the axes of C, whitened coordinates follow the given process, whose log-SNR is the clock.

    Arguments:
        process: The process that sets :math:`\alpha` and :math:`\sigma`.
        covariance: The covariance C of flat samples, with shape (D, D), or a variance for each entry, with the
            shape of a sample.

    Raises:
        ValueError: If the covariance is not symmetric and positive.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (13)
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> process = ss.CorrelatedNoise(ss.VP(), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        >>> z = process.prior_sample((1000, 2))
        >>> round(float(torch.corrcoef(z.T)[0, 1]), 1)
        0.9
    """

    process: Process
    covariance_matrix: Tensor = field(repr=False)
    t_min: float = field(default=math.nan, init=False, repr=False)
    t_max: float = field(default=math.nan, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_inner(self.process)
        given = as_tensor("covariance_matrix", self.covariance_matrix).double().cpu()
        if not given.numel():
            raise ValueError(
                f"covariance_matrix must hold numbers, but has shape {tuple(given.shape)}."
            )
        whole = given.ndim == 2 and given.shape[0] == given.shape[1]
        if not whole:
            given = torch.diag(given.flatten())
        if not bool((given - given.mT).abs().max() <= SYMMETRY * given.abs().max()):
            raise ValueError("covariance_matrix must be symmetric and finite.")
        values, vectors = torch.linalg.eigh(given)
        if not bool((values > 0).all()):
            raise ValueError(
                f"covariance_matrix must be positive, but has the eigenvalue {values.min():.3g}; add a multiple "
                "of the identity."
            )
        if bool((given == torch.diag(given.diagonal())).all()):  # whose axes are the entries
            values, vectors = given.diagonal(), torch.eye(len(given), dtype=torch.float64)
        for name, value in {
            "covariance_matrix": given,
            "_std": values.sqrt(),
            "_axes": vectors,
            "t_min": self.process.t_min,
            "t_max": self.process.t_max,
        }.items():
            object.__setattr__(self, name, value)
        self._check_ends()

    def __repr__(self) -> str:
        low, high = (float(v) for v in vars(self)["_std"].square().aminmax())
        axes = len(self.covariance_matrix)
        return (
            f"CorrelatedNoise({self.process}, variances {low:.3g} to {high:.3g} along {axes} axes)"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CorrelatedNoise):
            return NotImplemented
        same = torch.equal(self.covariance_matrix, other.covariance_matrix)
        return same and self.process == other.process

    def __hash__(self) -> int:
        return hash((self.process, self.covariance_matrix.numpy().tobytes()))

    def to_axes(self, x: Tensor) -> Tensor:
        return self._turned(x, vars(self)["_axes"])

    def from_axes(self, x: Tensor) -> Tensor:
        return self._turned(x, vars(self)["_axes"].T)

    def _turned(self, x: Tensor, axes: Tensor) -> Tensor:
        if (size := math.prod(x.shape[1:])) != len(axes):
            raise ValueError(
                f"samples of this CorrelatedNoise must have {len(axes)} entries, as its covariance does, but have "
                f"{size}, in shape {tuple(x.shape[1:])}."
            )
        return (x.flatten(1) @ axes.to(x)).reshape(x.shape)

    def coordinate_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.process.bare_scales(t.double())
        std: Tensor = vars(self)["_std"]
        return alpha[..., None].expand(*alpha.shape, len(std)), sigma[..., None] * std

    def coordinate_rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        count = len(vars(self)["_std"])
        f, slope = (r[..., None].expand(*r.shape, count) for r in self.process.bare_rates(t))
        return f, slope


@checked
@dataclass(frozen=True)
class Blurring(DiagonalProcess):
    r"""Creates blurring diffusion: heat dissipation, which fades high frequencies first, with noise.

    In the basis of the discrete cosine transform (DCT-II) along the last two axes of a sample, or its only one,
    the coordinate of the frequencies i and j has

    .. math:: \alpha_k = \alpha \, d_k , \quad \sigma_k = \sigma , \qquad
        d_k = (1 - d) \, e^{-\omega_k^2 \tau} + d , \quad
        \omega_k^2 = \pi^2 \Big( \frac{i^2}{H^2} + \frac{j^2}{W^2} \Big) , \quad
        \tau = \frac{b^2}{2} \sin^4 \Big( \frac{\pi}{2} \frac{t}{t_{max}} \Big) ,

    with :math:`\alpha` and :math:`\sigma` of a given process, whose log-SNR, that of frequency 0, is the clock.

    Arguments:
        shape: The shape of one sample.
        process: The process of frequency 0. By default, `VP()`.
        blur: The standard deviation b of the blur at `t_max`, in pixels; 0 leaves the process as it is.
        floor: The least factor d of a frequency.

    Raises:
        ValueError: If `blur` is negative, or `floor` is not in (0, 1].

    References:
        | Blurring Diffusion Models (Hoogeboom and Salimans, 2023), sections 4.1 and 4.2
        | https://arxiv.org/abs/2209.05557
        | Generative Modelling with Inverse Heat Dissipation (Rissanen et al., 2023), section 3
        | https://arxiv.org/abs/2206.13397

    Examples:
        >>> process = ss.Blurring((8, 8), blur=4.0)
        >>> x = torch.eye(8)[None]
        >>> flat = process.perturb(x, torch.tensor([1.0]), torch.zeros(1, 8, 8))
        >>> bool(flat.std() / flat.mean() < 0.1)  # the pattern is gone before the mean
        True
    """

    shape: tuple[int, ...]
    process: Process = field(default_factory=VP)
    blur: float = 2.0
    floor: float = 1e-3
    t_min: float = field(default=math.nan, init=False, repr=False)
    t_max: float = field(default=math.nan, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_inner(self.process)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        positive("blur", self.blur, zero=True)
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor must be in (0, 1], but is {self.floor}.")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape must be that of one sample, but is {self.shape}.")
        object.__setattr__(self, "t_min", self.process.t_min)
        object.__setattr__(self, "t_max", self.process.t_max)
        self._check()

    @cached_property
    def frequencies(self) -> Tensor:
        r"""The squared frequencies :math:`\omega_k^2` of the coordinates, with shape (c,)."""

        sizes = self.shape[-2:]
        lines = [(math.pi * torch.arange(n, dtype=torch.float64) / n).square() for n in sizes]
        total = lines[0] if len(lines) == 1 else lines[0][:, None] + lines[1]
        return total.expand(self.shape).flatten().contiguous()

    def to_axes(self, x: Tensor) -> Tensor:
        return self._along(x, inverse=False)

    def from_axes(self, x: Tensor) -> Tensor:
        return self._along(x, inverse=True)

    def _along(self, x: Tensor, *, inverse: bool) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"samples of this Blurring must have shape {self.shape}, but have {tuple(x.shape[1:])}."
            )
        for axis in range(-min(2, len(self.shape)), 0):
            C = dct(x.shape[axis]).to(x)
            x = torch.tensordot(x, C if inverse else C.T, dims=([axis], [0])).movedim(-1, axis)
        return x

    def coordinate_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = (scale[..., None] for scale in self.process.bare_scales(t.double()))
        faded = self._faded(t)[0]
        return alpha * faded, sigma.expand_as(faded)

    def coordinate_rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        f, slope = (rate[..., None] for rate in self.process.bare_rates(t))
        faded, rate = self._faded(t)
        return f + rate / faded, slope + rate / faded

    def _faded(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The factors :math:`d_k` and their derivatives, with shape (\*, c)."""

        angle = (math.pi / 2 * t.double() / self.t_max)[..., None]
        tau = self.blur**2 / 2 * angle.sin() ** 4
        rate = self.blur**2 * math.pi / self.t_max * angle.sin() ** 3 * angle.cos()
        kept = (1 - self.floor) * torch.exp(-self.frequencies * tau)
        return kept + self.floor, -self.frequencies * rate * kept


def dct(size: int) -> Tensor:
    r"""Returns the orthonormal matrix of the discrete cosine transform, whose rows are cosines."""

    n = torch.arange(size, dtype=torch.float64)
    C = torch.cos(math.pi / size * (n + 0.5) * n[:, None]) * math.sqrt(2 / size)
    C[0] /= math.sqrt(2)
    return C
