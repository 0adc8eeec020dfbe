r"""Forward processes: how signal and noise are scaled.

A process turns data into noise through the linear SDE :math:`dx = f(t) x \, dt + g(t) \, dw`,
whose transition kernel is

.. math:: p(x_t \mid x_0) = \mathcal{N}(x_t \mid \alpha_t x_0, \sigma_t^2 I) .

A subclass only defines :math:`\log \alpha` and :math:`\log \sigma`. With
:math:`\lambda = \log (\alpha / \sigma)`, the rest follows: :math:`f = \partial_t \log \alpha_t` and
:math:`g^2 = \partial_t \sigma_t^2 - 2 f \sigma_t^2 = -2 \sigma_t^2 \, \partial_t \lambda`.

References:
    | Variational Diffusion Models (Kingma et al., 2021), appendix L
    | https://arxiv.org/abs/2107.00630
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from solvers.doors.signatures import Door, checked, with_doors
from solvers.doors.values import WORD, Shape, as_device, as_shape, as_whole
from solvers.noise.brownian import START, keyed_normal
from solvers.shapes import align

from ..doors.amounts import positive
from ..doors.data import as_seeds, as_state, as_times
from ..doors.warning import warn
from .domain import Domain
from .once import once

CHECKED = 1025  # times at which a process is checked
PRIOR_GAP = 1e-2  # nats per dimension from which a warning is due
NOISE_LEVELS = {"sampling": 1e-2, "likelihood": 1e-3, "encoding": 1e-3}  # sigma / alpha at t_min
Use = Literal["sampling", "likelihood", "encoding"]
Pair = tuple[Tensor, Tensor]
_time = partial(torch.tensor, dtype=torch.float64)


OF_TIME: dict[str, dict[str, Door]] = {
    **{
        name: {"t": as_times} for name in ("log_scales", "scales", "log_snr", "rates", "diffusion")
    },
    "time": {"log_snr": as_times},
    "drift": {"x": as_state, "t": as_times},
    **{name: {} for name in ("noise_level", "at_noise_level", "start_of", "prior_sample")},
}  # the functions of a process, and the checks of their arguments


class Process(Domain, ABC):
    r"""Abstract forward process, with domain [`t_min`, `t_max`].

    Attributes:
        t_min: The first time, that of data.
        t_max: The last time, that of noise.
        has_scales: Whether it has the numbers :math:`\alpha` and :math:`\sigma`.
        has_levels: Whether clean data and noise levels are defined; with matrices in place of these numbers, too.
        constant: Whether it depends on nothing but its fields, so that derived quantities are computed once.
            Each class declares it for itself, as in `class Mine(Process, constant=True)`.
        grid: The default grid, unless its noise levels are cut; see :mod:`scoresde.runs.grids`.
        conditions: The names of the conditions that its drift or its prior takes, if it takes any.
        bound: The values of these conditions by name, with leading size B or 1, where they are given.

    Examples:
        >>> process, x, t = ss.EDM(), torch.ones(1, 2), torch.tensor([2.0])
        >>> process.diffusion(t)  # dx = sqrt(2 t) dw
        tensor([2.])
        >>> process.perturb(x, t, z=torch.ones(1, 2))
        tensor([[3., 3.]])
    """

    instead: ClassVar[str] = "; pass ss.VP() or another"

    def __init_subclass__(cls, *, constant: bool = False, **keywords: object) -> None:
        r"""Adds the common argument checks to the functions of time that a process defines."""

        super().__init_subclass__(**keywords)
        cls.constant = constant
        with_doors(cls, OF_TIME)

    has_scales: ClassVar[bool] = True
    has_levels: ClassVar[bool] = True
    constant: ClassVar[bool] = False
    bare_log_scales: Callable[[Tensor], Pair]  # the same without argument checks
    bare_scales: Callable[[Tensor], Pair]
    bare_log_snr: Callable[[Tensor], Tensor]
    bare_rates: Callable[[Tensor], Pair]
    bare_time: Callable[[Tensor], Tensor]
    bare_noise_level: Callable[[float], float]
    bare_at_noise_level: Callable[[float], float]
    bare_start_of: Callable[[Use], float]
    bare_prior_sample: Callable[..., Tensor]
    grid: ClassVar[str] = "logistic"
    conditions: tuple[str, ...] = ()
    bound: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def said_levels(self) -> tuple[float | None, float | None]:
        r"""The smallest and the largest noise level, where the user set them."""

        return None, None

    @property
    def is_constant(self) -> bool:
        r"""Whether it is constant, with all its parts."""

        return self.constant

    @property
    def key(self) -> "Process | None":
        r"""What numbers that follow from it are kept by, if they depend on nothing else."""

        return self if self.is_constant else None

    @abstractmethod
    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\log \alpha_t` and :math:`\log \sigma_t`, with the shape of `t`."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\alpha_t` and :math:`\sigma_t`, with the shape of `t`."""

        log_alpha, log_sigma = self.bare_log_scales(t)
        return log_alpha.exp(), log_sigma.exp()

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Returns :math:`\lambda_t = \log (\alpha_t / \sigma_t)`, with the shape of `t`."""

        log_alpha, log_sigma = self.bare_log_scales(t)
        return log_alpha - log_sigma

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        r"""Returns the inverse of :meth:`log_snr`, inside the domain."""

    def signal(self, t: Tensor) -> Tensor:
        r"""Returns the factor by which data enters at a time, :math:`\alpha_t`, with the shape of `t`."""

        return self.bare_scales(t)[0]

    def level(self, t: Tensor) -> Tensor:
        r"""Returns what settings by noise level are compared with, :math:`\sigma_t / \alpha_t`, in float64."""

        return torch.exp(-self.log_snr(t))

    def given(self, condition: Mapping[str, object]) -> Self:
        r"""Returns the process with those of the conditions bound that it takes."""

        return self

    def rows(self, index: Tensor) -> Self:
        r"""Returns the process for some rows of the batch."""

        return self

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\partial_t \log \alpha_t` and :math:`\partial_t \lambda_t`, with the shape of `t`."""

        one, zero = torch.ones_like(t), torch.zeros_like(t)
        if not self.is_constant or torch._C._functorch.peek_interpreter_stack() is not None:
            pull = torch.func.vjp(self.bare_log_scales, t.detach())[1]
            return pull((one, zero))[0], pull((one, -one))[0]
        # without other gradients, by autograd: torch.func.vjp imports the compiler, which takes seconds
        with torch.inference_mode(False), torch.enable_grad():
            leaf = t.detach().clone().requires_grad_()
            scales = [scale + 0 * leaf for scale in self.bare_log_scales(leaf)]
            (rise,) = torch.autograd.grad(scales, leaf, (one, zero), retain_graph=True)
            (slope,) = torch.autograd.grad(scales, leaf, (one, -one))
        return rise, slope

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the drift :math:`f(t) x`, with shape (B, *)."""

        return align(self.bare_rates(t)[0].to(x), x) * x

    def diffusion(self, t: Tensor) -> Tensor:
        r"""Returns the diffusion :math:`g(t)`, with the shape of `t`."""

        return self.bare_scales(t)[1] * torch.sqrt(-2 * self.bare_rates(t)[1])

    def enter(self, x: Tensor, t: Tensor, whole: bool = False) -> Tensor:
        r"""Returns the states of data at a time with shape () or (B,), :math:`\alpha x`."""

        return x * align(self.signal(t).to(x), x)

    def leave(self, u: Tensor, t: Tensor) -> Tensor:
        r"""Returns the data of states at a time, the inverse of :meth:`enter`."""

        return u / align(self.signal(t).to(u), u)

    def perturb(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        r"""Returns :math:`x_t = \alpha_t x + \sigma_t z`, in the dtype of `x` and `z`.

        Arguments:
            x: Clean data, with shape (B, *).
            t: The time, with shape () or (B,).
            z: Standard noise, with shape (B, *).
        """

        x, z = as_state("x", x), as_state("z", z)
        alpha, sigma = (align(scale.to(x), x) for scale in self.scales(t))
        return alpha * x + sigma * z

    @once
    def prior_std(self) -> float:
        r"""Returns the standard deviation :math:`\sigma` of the prior, at `t_max`."""

        return float(self.bare_scales(_time(self.t_max))[1])

    def _drawn(
        self,
        shape: tuple[int, ...],
        *,
        seed: int | Tensor = 0,
        first_index: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        index = torch.arange(first_index, first_index + shape[0], device=device)
        if isinstance(seed, Tensor):
            index, seed = torch.zeros_like(index), seed.to(index.device)
        shape = self.prior_shape(shape)
        z = keyed_normal(seed, index, START, 0, math.prod(shape[1:])).reshape(shape)
        return self.deviations(z).to(dtype or torch.get_default_dtype())

    def prior_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        r"""Returns the shape of draws from the prior for data of the given shape (B, *)."""

        return shape

    def deviations(self, z: Tensor) -> Tensor:
        r"""Returns the deviations from the mean of the prior that standard noise stands for."""

        return z * self.prior_std()

    @checked
    def prior_sample(
        self,
        shape: Shape,
        *,
        seed: int | Tensor = 0,
        first_index: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draws from the prior :math:`\mathcal{N}(0, \sigma_{t_{max}}^2 I)`.

        Arguments:
            shape: The shape (B, *).
            seed: The seed, or one per sample. Row i depends on the seed and on `first_index + i` alone, or on
                its own seed.
            first_index: The index of the first sample.
            dtype: The dtype. By default, PyTorch's.
            device: The device. By default, the CPU.
        """

        device = as_device("device", device)
        shape = as_shape("shape", shape, device)
        first_index = as_whole("first_index", first_index, at_least=0, at_most=WORD // 2)
        seed = as_seeds("seed", seed, shape[0])
        return self._drawn(shape, seed=seed, first_index=first_index, dtype=dtype, device=device)

    prior_sample.bare = _drawn  # type: ignore[attr-defined]

    def standardised(self, z: Tensor) -> Tensor:
        r"""Returns latents in units of the prior: minus its mean, over its standard deviation."""

        return z / self.prior_std()

    def prior_log_prob(self, z: Tensor) -> Tensor:
        r"""Returns the log-density of the prior in nats, with shape (B,), in float64."""

        z, std = as_state("z", z), self.prior_std()
        square = self.standardised(z.double()).flatten(1).square().sum(1)
        return -square / 2 - z[0].numel() * math.log(std * math.sqrt(2 * math.pi))

    @checked
    def prior_gap(self, data_std: float = 1.0) -> float:
        r"""Returns the KL divergence from the prior to :math:`p(x_{t_{max}} \mid x_0)`.

        It is :math:`\alpha^2 s^2 / (2 \sigma^2)` nats per dimension, for data with root mean square s.
        """

        return math.exp(2 * float(self.log_snr(_time(self.t_max)))) * data_std**2 / 2

    @checked
    @once
    def noise_level(self, t: float) -> float:
        r"""Returns :math:`\sigma_t / \alpha_t`."""

        return math.exp(-float(self.bare_log_snr(_time(t))))

    @checked
    def at_noise_level(self, level: float) -> float:
        r"""Returns the time at which :math:`\sigma_t / \alpha_t` is `level`, inside the domain."""

        return float(self.bare_time(-_time(positive("level", level)).log()))

    @checked
    @once
    def start_of(self, use: Use) -> float:
        r"""Returns the default of `t_min` for a use, which is chosen by noise level.

        Sampling goes down to the smallest noise level that the user set.
        """

        level, least = NOISE_LEVELS[use], self.said_levels[0]
        named = use == "sampling" and least is not None and least < level
        if named or self.bare_noise_level(self.t_max) <= level:
            return self.t_min
        return self.bare_at_noise_level(level)

    @checked
    def describe(self, t: float) -> str:
        r"""Returns a description of a time."""

        return f"t={t:.4g} (sigma/alpha={self.noise_level(t):.3g})"

    def _check(self) -> None:
        self._check_ends()
        t = torch.linspace(self.t_min, self.t_max, CHECKED, dtype=torch.float64)
        log_snr = self.log_snr(t)
        if not bool(log_snr.isfinite().all()):
            where = float(t[~log_snr.isfinite()][0])
            near = "; 1 - 2**-30 is close enough to 1" if where == self.t_max == 1 else ""
            raise ValueError(
                f"{type(self).__name__} has no finite log-SNR at t={where:.4g}; choose t_min and "
                f"t_max so that signal and noise are positive between them{near}."
            )
        if not bool((log_snr.diff() < 0).all()):
            where = float(t[:-1][log_snr.diff() >= 0][0])
            raise ValueError(
                f"log-SNR must decrease in time, but it does not at t={where:.4g}; data is at "
                "t_min and noise at t_max."
            )
        rising = self.rates(t)[1] >= 0
        if bool(rising.any()):
            raise ValueError(
                f"log-SNR must decrease in time, but rises at t={t[rising][0]:.6g}; it must decrease all "
                "the way between the ends."
            )
        few = t[:: (CHECKED - 1) // 32]
        f = self.drift(torch.ones_like(few)[:, None], few)[:, 0]
        self.check_rates(f, self.diffusion(few), few)
        gap = self.prior_gap()
        if gap > PRIOR_GAP:
            warn(
                f"at t_max={self.t_max:.4g}, the prior is {gap:.3g} nats per dimension from the "
                "noised data (of unit variance): samples and likelihoods will be biased; add more "
                "noise or raise t_max."
            )

    def check_rates(self, f: Tensor, g: Tensor, t: Tensor) -> None:
        r"""Refuses a drift f(t) and a diffusion g(t) that do not match the scales."""

        sigma = self.scales(t)[1]
        log_alpha_rate, log_snr_rate = Process.rates(self, t)
        want = {"drift": log_alpha_rate, "diffusion": sigma * torch.sqrt(-2 * log_snr_rate)}
        for (name, right), given in zip(want.items(), (f, g), strict=True):
            wrong = (given - right).abs() > 1e-4 * right.abs() + 1e-8
            if bool(wrong.any()):
                i = int(wrong.nonzero()[0])
                raise ValueError(
                    f"the {name} at t={t[i]:.4g} is {given[i]:.6g}, but alpha and sigma imply "
                    f"{right[i]:.6g}: f = d log alpha/dt and g^2 = d sigma^2/dt - 2 f sigma^2."
                )


with_doors(Process, OF_TIME)
