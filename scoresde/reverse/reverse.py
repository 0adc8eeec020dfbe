r"""Reverse processes as problems: the bridge from :mod:`scoresde` to :mod:`solvers`.

For any :math:`\eta \geq 0`, the marginals of a process are those of the equation

.. math:: dx = \Big( f x - \frac{1 + \eta^2}{2} g^2 \nabla \log p_t(x) \Big) dt + \eta \, g \, dw ,

which runs back in time. It is the probability flow for :math:`\eta = 0` and the reverse SDE for
:math:`\eta = 1`. With :math:`D = \mathbb{E}[x_0 \mid x_t]`, and in any clock, it reads

.. math:: dx = \big( \dot{(\log \alpha)} \, x + (1 + \eta^2) \, \dot \lambda \, (\alpha D - x) \big)
    + \eta \, \sigma \sqrt{2 |\dot \lambda|} \, dw .

In the state :math:`X = x / \alpha` and the clock :math:`\lambda = \log (\alpha / \sigma)` it is the same
semi-linear equation for all processes:

.. math:: dX = (1 + \eta^2) \, (D - X) \, d\lambda + \eta \sqrt{2} \, e^{-\lambda} dw .
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, TypedDict

import torch
from torch import Tensor

from solvers import ODE, SDE, Brownian, Chart, Problem, SemiLinear
from solvers.kept import kept, told
from solvers.noise.partial import Partial
from solvers.noise.translated import Translated
from solvers.problem import Sizes, StateField
from solvers.shapes import Scalar, align, factors

from ..models.data_moments import Moments
from ..models.masked import masked_of, share_of
from ..models.scale import scale_of, smoothness_of
from ..models.score_model import ScoreModel
from ..processes.custom import NonlinearProcess
from ..processes.dependent import check_given, reverse_drift
from .amounts import Amount, ByRow, amount_at
from .known import FORMS, MATCHED, known_moments
from .linear_part import Convention, Frame, make_noise
from .measured import Measured

Clock = Literal["t", "log_snr"]
LEAP = 0.23  # largest step in log-SNR, per order of the error estimate: data of one scale allows about 2
FLOOR = 1e-3  # of the mean variance: the floor for "floored"


class _Common(TypedDict, total=False):
    r"""The arguments that all kinds of problems share."""

    rows: Callable[[Tensor], Problem]
    describe: Callable[[float], str]
    cost: int
    sizes: Callable[[Tensor], Sizes]
    pace: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None
    longest: float
    share: Tensor | None


@dataclass(frozen=True)
class Reverse(Chart):
    r"""The reverse process in the form that a solver needs: a chart of the states of the process.

    Arguments:
        model: The score model.
        kind: The kind of problem: ODE, SDE or SemiLinear.
        eta: The amount of noise :math:`\eta`.
        clock: The time of the problem, "t" or "log_snr".
        form: The linear part of a semi-linear problem: "data", "noise", "isotropic" with the root mean square of
            the data, or "moments" with the model's moments. "floored" is the same with a lower bound on the
            variances, and "isotropic" if the model has no moments. "measured" takes the rates and sizes that were
            measured on the model.
        profile: How the noise of a semi-linear problem depends on the noise level, besides eta.
        convention: The meaning of eta.
    """

    model: ScoreModel
    kind: type[Problem]
    eta: Amount
    clock: Clock
    form: str = "data"
    profile: str = "constant"
    convention: Convention = "canonical"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            known = ", ".join(map(repr, FORMS))
            raise ValueError(f"form must be one of {known}, but is {self.form!r}.")

    def problem(self) -> Problem:
        r"""Returns the problem."""

        if isinstance(self.model.process, NonlinearProcess):
            return self._nonlinear(self.model.process)
        common = self.facts
        if self.kind is SemiLinear:
            return SemiLinear(
                partial(at, self._remainder),
                self.frame,
                tabulate=self._remainder,
                guess=self._guess,
                **common,
            )
        drift = partial(at, self._linear)
        if self.kind is SDE:
            return SDE(drift, self._diffusion, tabulate=self._linear, **common)
        return ODE(drift, tabulate=self._linear, **common)

    @property
    def facts(self) -> _Common:
        r"""What its problems of any kind have in common."""

        return {
            "rows": self._rows,
            "describe": self._describe,
            "cost": self.model.cost,
            "sizes": self._sizes,
            "pace": (self.model.process.bare_log_snr, self.model.process.bare_time)
            if self.clock == "t"
            else None,
            "longest": LEAP,
            "share": share_of(self.model) if self.model.masked else None,
        }

    @cached_property
    def moments(self) -> Moments | None:
        r"""The moments of the data, if the solver uses them."""

        if self.kind is not SemiLinear or self.form not in MATCHED:
            return None
        return known_moments(self.model, self.form)

    @cached_property
    def frame(self) -> Frame:
        r"""The linear part of a semi-linear problem."""

        if self.moments is not None:
            variances = self.moments.coordinates
            if self.form == "floored":
                variances = variances.clamp(min=FLOOR * variances.mean().item())
        else:
            known = {"data": 0.0, "noise": torch.inf}.get(self.form)
            known = scale_of(self.model) ** 2 if known is None else known
            variances = torch.tensor([known], dtype=torch.float64)
        noise = make_noise(self.profile, self.eta, self.convention)
        if self.form == "measured":
            assert self.moments is not None
            assert self.moments.curves is not None
            return Measured(self.model.process, variances, noise, curves=self.moments.curves)
        return Frame(self.model.process, variances, noise)

    def to_clock(self, time: Tensor) -> Tensor:
        r"""Returns the times of the problem from those of the process."""

        return self.model.process.bare_log_snr(time) if self.clock == "log_snr" else time

    def to_time(self, clock: Tensor) -> Tensor:
        r"""Returns the times of the process from those of the problem."""

        return self.model.process.bare_time(clock) if self.clock == "log_snr" else clock

    def scale(self, t: Tensor) -> Tensor:
        r"""Returns the factor that brings states of the problem to the size of x."""

        return (
            self.model.process.bare_scales(t)[0] if self.kind is SemiLinear else torch.ones_like(t)
        )

    def _sizes(self, clock: Tensor) -> Sizes:
        r"""The sizes of noisy data in units of x.

        With :math:`X = x / \alpha`, the rate of an error is :math:`\partial D / \partial X - 1` in log-SNR, and
        :math:`\partial D / \partial X` is a covariance over :math:`s^2`, so towards noise an error grows at most
        like the noise level s. If the data contains Gaussian noise of variance l, that covariance is at least
        :math:`l s^2 / (l + s^2)`, and the error grows at most like :math:`\sqrt{l + s^2}`.
        """

        alpha, sigma = self.model.process.bare_scales(self.to_time(clock))
        fine, coarse = (
            torch.sqrt(alpha**2 * size**2 + sigma**2)
            for size in (smoothness_of(self.model), scale_of(self.model))
        )
        unit = alpha if self.kind is SemiLinear else torch.ones_like(alpha)
        return Sizes(unit, alpha, fine, coarse)

    def enter(self, x: Tensor, time: Tensor) -> Tensor:
        r"""Returns the state of the problem from the state x of the process.

        This is x, or :math:`x / \alpha` for semi-linear problems, possibly in other coordinates.
        """

        return self._enter(x, self.scale(time))

    def leave(self, X: Tensor, time: Tensor) -> Tensor:
        r"""Returns the state of the process from that of the problem."""

        return self._leave(X, self.scale(time))

    def motion(self, outside: Brownian) -> Brownian:
        r"""Returns a Brownian motion, in log-SNR or without a clock, as the problem sees it."""

        part, own = masked_of(self.model), self._motion(outside)
        return own if part is None else Partial(own, part.mask)

    def _motion(self, outside: Brownian) -> Brownian:
        process, known = self.model.process, self.moments
        same = self.clock == "log_snr" or not process.has_levels
        if known is None:
            free = same or not outside.clocked
            return outside if free else Translated(outside, process.bare_log_snr, _itself)
        return Translated(outside, _itself, lambda w: known.like(w).split(w))

    def seam(self, times: Tensor, x: Tensor) -> Callable[[int, Tensor], Tensor] | None:
        r"""Returns the map of a state at the i-th time to the process and back, if it rounds.

        A run that ends there and one that continues from it apply this map. Stochastic runs in one piece apply
        it between their steps, so that they have the same bits.
        """

        scales = self.scale(times)
        if self.moments is None and _is_one(scales):
            return None
        return lambda i, X: self._enter(self._leave(X, scales[i]), scales[i])

    def _enter(self, x: Tensor, scale: Tensor) -> Tensor:
        X = x if _is_one(scale) else x / align(scale.to(x), x)
        if self.moments is None:
            return X
        known = self.moments.like(x)
        return known.split(X - known.mean)

    def _leave(self, X: Tensor, scale: Tensor) -> Tensor:
        if self.moments is not None:
            known = self.moments.like(X)
            X = known.join(X) + known.mean
        return X if _is_one(scale) else X * align(scale.to(X), X)

    def _linear(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        if isinstance(self.eta, ByRow) and clock.ndim == 1:
            clock = clock[:, None].expand(-1, len(x))
        process, t = self.model.process, self.to_time(clock)
        f, slope = process.bare_rates(t)
        if self.clock == "log_snr":
            f, slope = f / slope, torch.ones_like(slope)
        pull = (1 + self._eta_at(clock) ** 2) * slope
        return self.model.combine(
            t, f - pull, pull * process.bare_scales(t)[0], torch.ones_like(t), x
        )

    def _remainder(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        if self.moments is None:
            make = partial(self._coefficients, clock)
            t, a, b, alpha = kept(make, "remainder", self.frame.key, told(clock))
            return self.model.combine(t, a, b, alpha, x)
        t = self.to_time(clock)
        a, b = self.frame.remainder(clock)
        alpha = self.scale(t)
        known, zeros = self.moments.like(x), torch.zeros_like(t)
        fields = self.model.combine(t, zeros, zeros + 1, alpha, known.join(x))

        def bind(field: StateField, a: Scalar, b: Scalar) -> StateField:
            def remainder(z: Tensor) -> Tensor:
                denoised = field(known.join(z) + known.mean)
                return a * z + b * known.split(denoised - known.mean)

            return remainder

        columns = zip(fields, factors(a, x), factors(b, x), strict=True)
        return [bind(*column) for column in columns]

    def _coefficients(self, clock: Tensor) -> tuple[Tensor, ...]:
        r"""The times, the coefficients of N in the form of :meth:`ScoreModel.combine`, and the scales."""

        t = self.to_time(clock)
        a, b = self.frame.remainder(clock)
        alpha = self.scale(t)
        return t, a[..., 0] / alpha, b[..., 0], alpha

    def _guess(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        if self.moments is not None:
            return [torch.zeros_like for _ in clock]  # on Gaussian data
        a, b = self.frame.remainder(clock)
        variance = scale_of(self.model) ** 2
        factor = a + b * (variance / (variance + torch.exp(-2 * clock)))[..., None]
        return [lambda X, c=c: c * X for c in factors(factor, x)]  # type: ignore[misc]

    def _diffusion(self, clock: Tensor) -> Tensor:
        process, t = self.model.process, self.to_time(clock)
        if self.clock == "log_snr":
            return self._eta_at(clock) * 2**0.5 * process.bare_scales(t)[1]
        return self._eta_at(clock) * process.diffusion(t)

    def _eta_at(self, clock: Tensor) -> float | Tensor:
        if not callable(self.eta):
            return amount_at(self.eta, clock)
        log_snr = clock if self.clock == "log_snr" else self.model.process.bare_log_snr(clock)
        return amount_at(self.eta, log_snr)

    def rows(self, index: Tensor) -> "Reverse":
        r"""Returns the reverse process of some rows."""

        eta = self.eta.rows(index) if isinstance(self.eta, ByRow) else self.eta
        return replace(self, model=self.model.rows(index), eta=eta)

    def _rows(self, index: Tensor) -> Problem:
        return self.rows(index).problem()

    def _describe(self, clock: float) -> str:
        time = self.to_time(torch.tensor(clock, dtype=torch.float64))
        return self.model.process.describe(float(time))

    def _nonlinear(self, process: NonlinearProcess) -> Problem:
        if self.kind is SemiLinear or self.clock != "t":
            process.log_scales(torch.zeros(()))  # raises, because there are none

        check_given(process)

        def drift(t: Tensor, x: Tensor) -> Tensor:
            t = t.reshape(-1) if t.ndim else t
            return reverse_drift(process, x, t, self.model.score(x, t), self._eta_at(t))

        common: _Common = {
            "rows": self._rows,
            "describe": self._describe,
            "longest": LEAP / 10 * (process.t_max - process.t_min),
        }
        if self.kind is SDE:
            return SDE(drift, self._diffusion, **common)
        return ODE(drift, **common)


def check_has_levels(model: ScoreModel, eta: Amount) -> None:
    r"""Refuses a function of the noise level for a process without noise levels."""

    if callable(eta) and not model.process.has_levels:
        raise ValueError(
            f"eta is a function of the noise level, which {model.process} does not have; pass a number."
        )


def _is_one(scale: Tensor) -> bool:
    r"""Whether a factor, or each of several, is 1."""

    return scale.item() == 1 if scale.ndim == 0 else bool((scale == 1).all())


def _itself(x: Tensor) -> Tensor:
    return x


def at(
    tabulate: Callable[[Tensor, Tensor], Sequence[StateField]], clock: Tensor, x: Tensor
) -> Tensor:
    r"""Returns a tabulated field at one time, or at one per row."""

    clock = clock.reshape(-1)[: len(x)] if clock.ndim > 1 else clock
    return tabulate(clock[None], x)[0](x)
