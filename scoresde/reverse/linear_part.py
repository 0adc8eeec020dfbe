r"""The linear parts with which reverse processes are solved.

For data with mean m and variances l along some axes, and :math:`z = X - m`, the denoised data is
:math:`m + \rho z` plus a remainder, where :math:`\rho = l / (l + s^2)` at the noise level
:math:`s = \sigma / \alpha = e^{-\lambda}`. So the equation of :mod:`scoresde.reverse.reverse` is

.. math:: dz = -(1 + \eta^2) \frac{s^2}{l + s^2} z \, d\lambda
    + (1 + \eta^2) \frac{s}{\sqrt{l + s^2}} N \, d\lambda + \eta \sqrt 2 \, s \, dw , \qquad
    N = \frac{\sqrt{l + s^2}}{s} (D - m - \rho z) ,

along each axis, and its linear part is solved exactly:

.. math:: \Phi = \Big( \frac{l + s'^2}{l + s^2} \Big)^{(1 + \eta^2) / 2} , \qquad
    \mathrm{std}^2 = (l + s'^2) \Big( 1 - \Big( \frac{l + s'^2}{l + s^2} \Big)^{\eta^2} \Big) .

The variance l is a choice. At l = 0, N is the denoised data: the form of DPM-Solver++. At :math:`l = \infty`, N
is minus the noise, up to a constant factor: the form of DDIM (:math:`\epsilon`) and DPM-Solver. At the variance
of the data, N = 0 for Gaussian data, and steps of any size are exact.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from solvers.problem import LinearFamily

from ..processes.process import Process
from .amounts import Amount, amount_over, root_of

Noise = Callable[[Tensor, Tensor], Tensor]  # the integral of eta^2 d lambda over steps
WIDEST = 1e4  # variances over that of the noise, beyond which data and noise pull alike
QUIET = 18.0  # log-SNR to a so much less noisy time that, in float64, all variance of the noisier one is new
Convention = Literal["canonical", "ddim", "k_diffusion"]


@dataclass(frozen=True)
class Frame(LinearFamily):
    r"""The linear part for given variances, in the clock :math:`\lambda`.

    Arguments:
        process: The process.
        variances: The variances l, with shape (c,), in [0, inf].
        noise: The integral of :math:`\eta^2` over steps, or `None` without noise.
    """

    process: Process
    variances: Tensor
    noise: Noise | None = None

    def total(self, t: Tensor) -> Tensor:
        r"""Returns :math:`l + s^2`, with shape (\*, c), or 1 where l is infinite."""

        return self._total(torch.exp(-t)[..., None])

    def _total(self, level: Tensor) -> Tensor:
        total = self.variances + level.square()
        return total if self._flat is None else torch.where(self._flat, 1.0, total)

    @cached_property
    def _flat(self) -> Tensor | None:
        r"""Where l is infinite, or `None` if it is so nowhere."""

        flat = self.variances.isinf()
        return flat if bool(flat.any()) else None

    def decay(self, s: Tensor, t: Tensor) -> Tensor:
        before, after = self.total(s), self.total(t)
        if self.noise is None:
            return (after / before).sqrt()
        return _decay(before, after, 1 + self._eta2(s, t))

    def weight(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        level = torch.exp(-u)[..., None]
        total, end = self._total(level), self.total(t)
        if self.noise is None:
            return level * end.sqrt() / total
        rate = 1 + self._eta2(s, t)
        return rate * level / total.sqrt() * _decay(total, end, rate)

    def noise_std(self, s: Tensor, t: Tensor) -> Tensor:
        if self.noise is None:
            return torch.zeros_like(self.total(torch.minimum(s, t)))
        eta2, total = self._eta2(s, t), self.total(t)
        gained = -torch.expm1(eta2 * (total / self.total(s)).log()) * total
        if self._flat is not None:
            flat = eta2 * (torch.exp(-2 * s) - torch.exp(-2 * t))[..., None]
            gained = torch.where(self._flat, flat, gained)
        return gained.clamp(min=0).sqrt()

    def middle(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns the time halfway in :math:`\arctan (s / \sqrt l)`, on average over the coordinates."""

        before, after = torch.exp(-s)[..., None], torch.exp(-t)[..., None]
        r0, r1 = self._total(before).sqrt(), self._total(after).sqrt()
        return -((before * r1 + after * r0) / (r0 + r1)).mean(-1).log()

    @cached_property
    def key(self) -> Hashable | None:
        process, known = self.process.key, self.noise is None or isinstance(self.noise, Steady)
        if process is None or not known or len(self.variances) > 1:
            return None
        return process, self.variances.item(), self.noise

    @property
    def quiet(self) -> "Frame":
        return replace(self, noise=None)

    @property
    def parameter(self) -> Tensor:
        return self.variances

    def member(self, parameter: Tensor) -> "Frame":
        return replace(self, variances=parameter[:, None, None])

    def fit(self, s: Tensor, t: Tensor, ratio: Tensor) -> Tensor:
        r"""Returns the variance of the Gaussian on one of whose paths both states lie.

        On a path around c, :math:`x - c \propto \sqrt{l + s^2}`, so with the denoised data D,
        :math:`x - D \propto s^2 / \sqrt{l + s^2}`.
        """

        before, after = torch.exp(-2 * s), torch.exp(-2 * t)
        q = (ratio * before / after).square()  # (l + before) / (l + after)
        found = (before - q * after) / (q - 1)
        side = torch.where(before > after, q <= 1, q >= 1)  # no variance is large enough
        found = torch.where(side | found.isnan(), WIDEST * before, found)
        return torch.minimum(found.clamp(min=0), WIDEST * torch.maximum(before, after))

    @property
    def contrast(self) -> Tensor:
        if len(self.variances) == 1:
            return super().contrast
        return self.variances / (self.variances + self.variances.mean())

    def level(self, t: Tensor) -> Tensor:
        return torch.exp(-t)

    def time_of(self, level: Tensor) -> Tensor:
        ends = self.process.bare_log_snr(
            torch.tensor([self.process.t_max, self.process.t_min], dtype=torch.float64)
        )
        return (-level.log()).clamp(*ends.tolist())

    def beyond(self, s: Tensor, t: Tensor) -> Tensor:
        return t if self.noise is None else t + self.noise(s, t).clamp(max=QUIET)

    def variable(self, name: str, t: Tensor) -> Tensor:
        if name == "clock":
            return t
        if name == "noise_level":
            return torch.exp(-t)
        return self.process.bare_time(t) if name == "time" else super().variable(name, t)

    def remainder(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns a and b of :math:`N = a z + b (D - m)`, with shape (\*, c)."""

        level, total = torch.exp(-t)[..., None], self.total(t)
        b = total.sqrt() / level  # the total is 1 where the variance is infinite
        ratio = self.variances / total
        ratio = ratio if self._flat is None else torch.where(self._flat, 1, ratio)
        return -b * ratio, b

    def _eta2(self, s: Tensor, t: Tensor) -> Tensor:
        r"""The mean of :math:`\eta^2` over steps."""

        assert self.noise is not None
        return (self.noise(s, t) / torch.where(t == s, 1.0, t - s))[..., None]


def _decay(before: Tensor, after: Tensor, rate: Tensor) -> Tensor:
    r"""The ratio of two totals to the power of half a rate."""

    # a power by logarithm: PyTorch's uses a different routine for the last entries of a tensor
    return torch.exp(rate / 2 * (after / before).log())


def constant_noise(eta: float | Tensor) -> Noise:
    r"""Returns the noise for an :math:`\eta` that is constant over each step."""

    return lambda s, t: eta**2 * (t - s)


def up_step(eta: float | Tensor) -> Noise:
    r"""Returns the noise in DDIM's convention.

    A step adds `eta` times the noise that it adds for :math:`\eta = 1`,
    :math:`\sigma_u = \eta \, s' \sqrt{1 - s'^2 / s^2}`.

    References:
        | Denoising Diffusion Implicit Models (Song et al., 2021), equation (16)
        | https://arxiv.org/abs/2010.02502
    """

    def noise(s: Tensor, t: Tensor) -> Tensor:
        added = -torch.expm1(-2 * (t - s)) * eta**2
        if not bool((added < 1).all()):
            most = torch.as_tensor(eta, dtype=torch.float64).max().item()
            raise ValueError(
                f"eta={most} in the convention of DDIM asks for more noise than a step can hold; "
                "pass at most 1, or use the canonical convention."
            )
        return -torch.log1p(-added) / 2

    return noise


def er_noise(eta: float | Tensor) -> Noise:
    r"""Returns the noise of ER-SDE-Solver, where a step multiplies the state by a ratio of values of

    .. math:: \phi(s) = s \, (\exp(s^{0.3}) + 10) .

    References:
        | Elucidating the Solution Space of Extended Reverse-Time SDE (Cui et al., 2023), section 4
        | https://arxiv.org/abs/2309.06169
    """

    def rest(t: Tensor) -> Tensor:  # log phi - log s
        power = torch.exp(-0.3 * t)
        return power + torch.log1p(10 * torch.exp(-power))

    return lambda s, t: eta**2 * (rest(s) - rest(t))


def middle_noise(eta: float | Tensor, low: float = 0.05, high: float = 1.0) -> Noise:
    r"""Returns the noise of SA-Solver: a constant :math:`\eta` between two noise levels, and none elsewhere.

    References:
        | SA-Solver: Stochastic Adams Solver (Xue et al., 2023), appendix E.1
        | https://arxiv.org/abs/2309.05019
    """

    start, stop = -math.log(high), -math.log(low)
    return lambda s, t: eta**2 * (t.clamp(start, stop) - s.clamp(start, stop))


PROFILES: dict[str, Callable[[float | Tensor], Noise]] = {
    "constant": constant_noise,
    "er_sde": er_noise,
    "sa": middle_noise,
}


@dataclass(frozen=True)
class Steady:
    r"""Creates the noise of a profile for one :math:`\eta`.

    Arguments:
        profile: The profile, as a function from eta to noise.
        eta: The eta.
    """

    profile: Callable[[float | Tensor], Noise]
    eta: float

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        return self.profile(self.eta)(s, t)


def make_noise(profile: str, eta: Amount, convention: str) -> Noise | None:
    r"""Returns the noise of a solver's profile, in the user's convention of eta, or `None` where eta is 0.

    "canonical" is the :math:`\eta` of the equation; "ddim" scales the noise of a step, also in
    k-diffusion's ancestral samplers; "k_diffusion" is its square, in that library's SDE samplers. If eta depends
    on the noise level, each step has the root mean square of it over the step.
    """

    if convention == "ddim" and profile != "constant":
        raise ValueError(f"eta_convention='ddim' has no effect on the noise of {profile!r}.")
    made = up_step if convention == "ddim" else PROFILES[profile]
    eta = root_of(eta) if convention == "k_diffusion" else eta
    if isinstance(eta, float):
        return Steady(made, eta) if eta else None
    return lambda s, t: made(amount_over(eta, s, t))(s, t)
