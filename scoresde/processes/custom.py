r"""Your own processes: from scales, from a linear drift, or from any drift.

Functions of time map float64 tensors with shape (n,) to the same, by PyTorch operations; a constant function may
be given as a number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Shape, is_number

from ..doors.amounts import positive
from .dependent import Mean, as_mean, for_rows, placed, rows_of, taken
from .process import CHECKED, Process
from .quadrature import PIECES, Antiderivative, Known, check_rate, rate_at, refined
from .schedules import invert

NEWTON = 6  # iterations inside a piece, from its middle


@checked
@dataclass(frozen=True)
class CustomProcess(Process):
    r"""Creates the process with the scales :math:`\alpha(t), \sigma(t)`.

    Arguments:
        alpha: The function :math:`\alpha(t) > 0`.
        sigma: The function :math:`\sigma(t) > 0`.
        t_min: The first time.
        t_max: The last time.
        f: The rate :math:`f(t)` of the drift, to check it against the scales.
        g: The diffusion :math:`g(t)`, to check it against the scales.

    Raises:
        ValueError: If the log-SNR does not decrease, `f` or `g` do not match the scales, or the scales are
            random or not differentiable by PyTorch.

    Examples:
        >>> process = ss.CustomProcess(lambda t: 1 - t, lambda t: t, t_max=0.99)
        >>> [round(float(scale), 4) for scale in process.scales(torch.tensor(0.25))]
        [0.75, 0.25]
    """

    alpha: Known
    sigma: Known
    t_min: float = 1e-3
    t_max: float = 1.0
    f: Known | None = None
    g: Known | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma", "f", "g"):
            if name in ("alpha", "sigma") or getattr(self, name) is not None:
                check_rate(name, getattr(self, name))
        self._check_ends()
        self._check_scales()
        self._check()
        t = torch.linspace(self.t_min, self.t_max, 33, dtype=torch.float64)
        f, g = self.rates(t)[0], self.diffusion(t)
        f = f if self.f is None else rate_at("f", self.f, t)
        g = g if self.g is None else rate_at("g", self.g, t)
        self.check_rates(f, g, t)

    def __repr__(self) -> str:
        return described(self, "alpha", "sigma")

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return rate_at("alpha", self.alpha, t).log(), rate_at("sigma", self.sigma, t).log()

    def time(self, log_snr: Tensor) -> Tensor:
        return invert(self.log_snr, log_snr, (self.t_min, self.t_max))

    def _check_scales(self) -> None:
        r"""Refuses scales that differ from call to call, or whose derivatives autograd does not see."""

        h = 1e-5 * (self.t_max - self.t_min)
        t = torch.linspace(self.t_min, self.t_max, CHECKED, dtype=torch.float64)[1:-1]
        here, again = torch.stack(self.log_scales(t)), torch.stack(self.log_scales(t))
        if not bool(torch.isclose(here, again, rtol=1e-9, atol=1e-12, equal_nan=True).all()):
            raise ValueError("alpha and sigma must be functions of t alone, but two calls differ.")
        slopes = (
            (torch.stack(self.log_scales(t + h)) - torch.stack(self.log_scales(t - h))) / h / 2
        )
        try:
            f, log_snr_rate = Process.rates(self, t)
        except RuntimeError as error:  # of NumPy in between
            raise ValueError(
                f"the derivatives of alpha and sigma cannot be taken: {error}"
            ) from None
        derived = torch.stack([f, f - log_snr_rate])
        wrong = (derived - slopes).abs() > 0.05 * slopes.abs() + 1e-4 * slopes.abs().mean()
        for name, share in zip(("alpha", "sigma"), wrong.double().mean(1).tolist(), strict=True):
            if share > 0.2:  # tables have kinks, but only a few
                raise ValueError(
                    f"PyTorch's derivative of {name} does not match its values; compute it with PyTorch "
                    "operations on t, without detach, NumPy or rounding."
                )


@checked
@dataclass(frozen=True)
class LinearProcess(Process):
    r"""Creates the process :math:`dx = f(t) x \, dt + g(t) \, dw`, whose noise starts at t = 0.

    Its scales are computed by Gauss-Legendre quadrature of

    .. math:: \log \alpha_t = \int_0^t f , \qquad
        \sigma_t^2 = \alpha_t^2 \int_0^t g^2 / \alpha^2 ,

    to round-off, even where f and g jump, as for a :math:`\beta` from a table.

    Arguments:
        f: The rate :math:`f(t)`.
        g: The diffusion :math:`g(t) > 0`.
        t_min: The first time.
        t_max: The last time.

    Raises:
        ValueError: If a rate cannot be integrated, or g is not positive.

    Examples:
        >>> process = ss.LinearProcess(-1.0, 2.0**0.5, t_max=5.0)
        >>> [round(float(scale), 4) for scale in process.scales(torch.tensor(0.5))]  # alpha = exp(-t)
        [0.6065, 0.7951]
    """

    f: Known
    g: Known
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        for name in ("f", "g"):
            check_rate(name, getattr(self, name))
        self._check_ends()
        self._check_diffusion()
        edges = self.t_max * torch.linspace(0, 1, PIECES + 1, dtype=torch.float64) ** 2
        for name, rate in (("f", self._f), ("g^2", self._g2)):
            edges = refined(name, rate, edges, torch.ones_like)
        object.__setattr__(self, "_log_alpha", Antiderivative.of(self._f, edges))
        rough = Antiderivative.of(self._growth, edges)
        edges = refined(
            "g^2 / alpha^2", self._growth, edges, lambda t: rough(t.clamp(min=self.t_min))
        )
        object.__setattr__(self, "_log_alpha", Antiderivative.of(self._f, edges))
        object.__setattr__(self, "_variance", Antiderivative.of(self._growth, edges))
        object.__setattr__(self, "_log_snr", self.log_snr(edges[1:]).cummin(0).values)
        self._check()

    def __repr__(self) -> str:
        return described(self, "f", "g")

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._table("_log_alpha")(t)
        return log_alpha, log_alpha + self._table("_variance")(t).log() / 2

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._f(t), -self._g2(t) / (2 * self.scales(t)[1] ** 2)

    def time(self, log_snr: Tensor) -> Tensor:
        edges, known = self._table("_variance").edges, vars(self)["_log_snr"]
        piece = torch.searchsorted(-known, -log_snr.contiguous()).clamp(max=len(known) - 1)
        low, high = (edges[k].clamp(self.t_min, self.t_max) for k in (piece, piece + 1))
        t = (low + high) / 2
        for _ in range(NEWTON):
            log_alpha, log_sigma = self.log_scales(t)
            slope = -self._g2(t) / (2 * log_sigma.exp() ** 2)
            t = t - (log_alpha - log_sigma - log_snr) / slope
            t = torch.minimum(torch.maximum(t, low), high)
        return t

    def check_rates(self, f: Tensor, g: Tensor, t: Tensor) -> None:
        r"""Checks nothing: the scales are integrals of these rates, exact to round-off."""

    def _check_diffusion(self) -> None:
        t = torch.linspace(self.t_min, self.t_max, CHECKED, dtype=torch.float64)
        for name, rate in (("f", self.f), ("g", self.g)):
            value = rate_at(name, rate, t)
            bad = ~value.isfinite() | ((value < 0) if name == "g" else False)
            if bool(bad.any()):
                kind = "positive and finite" if name == "g" else "finite"
                raise ValueError(
                    f"{name} must be {kind}, but is {value[bad][0]:.4g} at t={t[bad][0]:.4g}."
                )

    def _table(self, name: str) -> Antiderivative:
        table: Antiderivative = vars(self)[name]
        return table

    def _f(self, t: Tensor) -> Tensor:
        return rate_at("f", self.f, t)

    def _g2(self, t: Tensor) -> Tensor:
        return rate_at("g", self.g, t).square()

    def _growth(self, t: Tensor) -> Tensor:
        return self._g2(t) * torch.exp(-2 * self._table("_log_alpha")(t))


def described(process: Process, *functions: str) -> str:
    r"""Returns a description of a process that is the same in every run, with the names of its functions."""

    words = []
    for name in functions:
        function = getattr(process, name)
        known = getattr(function, "__qualname__", type(function).__qualname__)
        words.append(f"{name}={known.split('<locals>.')[-1]}")
    span = f"t in [{process.t_min:.3g}, {process.t_max:.3g}]"
    return f"{type(process).__name__}({', '.join(words)}, {span})"


@checked
@dataclass(frozen=True)
class NonlinearProcess(Process):
    r"""Creates the process :math:`dx = f(x, t) \, dt + g(t) \, dw` with any drift.

    It has no scales, so what needs them is refused: clean data, noise, noise levels, semi-linear solvers, edits,
    and guidance that acts on clean data. Data is the state at `t_min`, and latents are states at `t_max`. Samples,
    latents and likelihoods follow from

    .. math:: dx = \Big( f(x, t) - \tfrac{1}{2} g^2(t) \, \nabla \log p_t(x) \Big) \, dt ,

    its probability flow. Sampling leaves out the last denoising. Its models must have `predicts="score"`.

    Drift and prior may depend on conditions, as in a process that reverts to a measurement. Their values are
    given to its models, by `model.given(measurement=y)` or as keywords of a function; the network gets those that
    its own `conditions` name.

    Arguments:
        f: The drift :math:`f(x, t)`, with shape (B, *), for x with shape (B, *) and t with shape () or (B, 1,
            ...). It gets the conditions by name, as `f(x, t, **condition)`, each with leading size B.
        g: The diffusion :math:`g(t)`.
        std: The standard deviation of the prior at `t_max`.
        t_min: The first time.
        t_max: The last time.
        mean: The mean of the prior: a number, a tensor with the shape of one sample, or a function of the
            conditions, `mean(**condition)`, which returns means with shape (B, *).
        conditions: The names of the conditions that `f`, and `mean` if it is a function, take.

    Raises:
        TypeError: If `f` is not a function, or `mean` neither a number, a tensor nor a function.
        ValueError: If `std` is not positive, or the times are not in order.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (13)
        | https://arxiv.org/abs/2011.13456
        | Image Restoration with Mean-Reverting Stochastic Differential Equations (Luo et al., 2023),
        | equation (3), for a mean that is a measurement
        | https://arxiv.org/abs/2301.11699

    Examples:
        >>> process = ss.NonlinearProcess(lambda x, t: -(x**3), 1.0)
        >>> process.drift(torch.tensor([[2.0]]), torch.tensor([0.5]))
        tensor([[-8.]])
        >>> reverting = ss.NonlinearProcess(
        ...     lambda x, t, measurement: measurement - x,
        ...     2**0.5,
        ...     t_max=4.0,
        ...     mean=lambda measurement: measurement,
        ...     conditions=("measurement",),
        ... )
        >>> model = ss.NetworkScore(lambda x, t: 3 - x, reverting, "score", shape=(1,))
        >>> ss.sample(model, 2, measurement=torch.tensor([[3.0]]), solver="heun", steps=5)
        Solution((2, 1) by heun, 5 intervals, 10 calls per sample)
    """

    f: Callable[..., Tensor]
    g: Known
    std: float = 1.0
    t_min: float = 1e-3
    t_max: float = 1.0
    mean: Mean = 0.0
    conditions: tuple[str, ...] = ()
    bound: Mapping[str, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    has_scales: ClassVar[bool] = False
    has_levels: ClassVar[bool] = False
    grid: ClassVar[str] = "t"

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f must be a function of x and t, but is {self.f!r}.")
        check_rate("g", self.g)
        positive("std", self.std)
        self._check_ends()
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "mean", as_mean(self.mean))

    def __repr__(self) -> str:
        own = () if is_number(self.mean) and self.mean == 0 else ("mean",)
        return described(self, "f", "g", *own)

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(
            "a NonlinearProcess has no alpha and sigma, so clean data, noise and log-SNR are not "
            "defined. Samples, latents and likelihoods need a model with predicts='score' and an ODE (or, for "
            "samples, SDE) solver such as 'dopri5', 'heun' or 'em' with clock='t' and grid='t'; edits, bounds, "
            "denoising and semi-linear solvers need scales."
        )

    def time(self, log_snr: Tensor) -> Tensor:
        return self.log_scales(log_snr)[0]

    def signal(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)  # as data is the state at t_min

    def level(self, t: Tensor) -> Tensor:
        return t

    def given(self, condition: Mapping[str, object]) -> Self:
        return taken(self, condition)

    def rows(self, index: Tensor) -> Self:
        return rows_of(self, index)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        version = None if x.is_inference() else x._version
        f = self.f(x, t, **for_rows(self, x))
        if version is not None and x._version != version:
            raise ValueError(
                "the drift f changed x in place; write it so that it returns a new tensor."
            )
        if not isinstance(f, Tensor) or f.shape != x.shape:
            got = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
            raise ValueError(
                f"the drift f must return the shape of x, {tuple(x.shape)}, but returned {got}."
            )
        return f

    def diffusion(self, t: Tensor) -> Tensor:
        return rate_at("g", self.g, t)

    def prior_std(self) -> float:
        return float(self.std)

    def prior_sample(
        self,
        shape: Shape,
        *,
        seed: int | Tensor = 0,
        first_index: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draws from the prior :math:`\mathcal{N}(m, s^2 I)`, with the mean m and the standard deviation s."""

        known = {"seed": seed, "first_index": first_index, "dtype": dtype, "device": device}
        z = super().prior_sample(shape, **known)  # type: ignore[arg-type]
        return z + placed(self, self.mean, z)

    def standardised(self, z: Tensor) -> Tensor:
        return (z - placed(self, self.mean, z)) / self.prior_std()

    def start_of(self, use: str) -> float:
        return self.t_min

    @checked
    def describe(self, t: float) -> str:
        return f"t={t:.4g}"
