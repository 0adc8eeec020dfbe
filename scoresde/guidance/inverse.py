r"""Inverse problems: data of which :math:`y = A(x_0) + \epsilon` is known, with normal noise of deviation s_y.

Each is the gradient of an estimate of :math:`\log p(y \mid x_t)` with respect to the data.

References:
    | Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023), algorithm 1
    | https://arxiv.org/abs/2209.14687
    | Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023), equation (7)
    | https://openreview.net/forum?id=9_gsMA8MRKQ
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024),
    | section 4.2, for moment matching
    | https://arxiv.org/abs/2405.13712
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import Scalar

from ..models.checks import check_count, check_finite
from ..models.conditions import as_conditions, rows_of
from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from .combined import row_sum
from .operators import (
    Measurable,
    Operator,
    Product,
    check_measurement,
    check_noise,
    measure,
    solve,
)
from .pulled import Pull, Pulled


@checked
def posterior_sampling(
    model: ScoreModel,
    operator: Operator,
    y: Tensor,
    *,
    strength: float = 1.0,
    max_level: float | None = None,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model guided by a measurement in the manner of DPS, for any differentiable operator.

    .. math:: D' = D - \zeta \, V \, \frac{\nabla |y - A(D)|^2}{|y - A(D)|}

    The division makes it robust, and no posterior of any noise. This is its form as a score; the paper moves the
    state by the gradient once in each step, at any noise level, so its strengths are other numbers.

    Arguments:
        model: The model.
        operator: The function A, each row by itself.
        y: The measurements, with leading size B or 1.
        strength: The :math:`\zeta`.
        max_level: The noise level above which the model is not guided; see :func:`universal`.
        data: What else the operator takes, such as masks, each with leading size B or 1.
    """

    strength = check_finite("strength", strength)
    if "noise" in data and not isinstance(data["noise"], Tensor):
        raise TypeError(
            "posterior_sampling has no noise=, in whose place it divides by the length of what is left: set "
            "strength=, or use pseudoinverse or moment_matching, which take it."
        )
    return Pulled(model, _Posterior(*_measured(operator, y, data), strength), max_level)


@checked
def pseudoinverse(
    model: ScoreModel,
    operator: Operator,
    y: Tensor,
    *,
    noise: float = 0.0,
    iterations: int = 20,
    max_level: float | None = None,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model guided by a linear measurement as in PiGDM.

    .. math:: D' = D + V \big( r^2 A^T A + \sigma_y^2 \big)^{-1} A^T (y - A D) , \qquad
        r^2 = \frac{s^2 c^2}{s^2 + c^2}

    for data of standard deviation c, as if data given its noisy state were normal with variance
    :math:`r^2`. The system is solved by conjugate gradients, without calls of the network.

    Arguments:
        model: The model.
        operator: The linear function A, each row by itself.
        y: The measurements, with leading size B or 1.
        noise: Their standard deviation :math:`\sigma_y`.
        iterations: Of conjugate gradients.
        max_level: The noise level above which the model is not guided; see :func:`universal`.
        data: What else the operator takes, such as masks, each with leading size B or 1.
    """

    iterations = check_count("iterations", iterations, at_least=1)
    pull = _Pseudoinverse(
        *_measured(operator, y, data), check_noise(noise), iterations, _spread(model)
    )
    return Pulled(model, pull, max_level)


@checked
def moment_matching(
    model: ScoreModel,
    operator: Operator,
    y: Tensor,
    *,
    noise: float,
    iterations: int = 5,
    max_level: float | None = None,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model guided by a linear measurement as in MMPS.

    .. math:: D' = D + V A^T \big( A V A^T + \sigma_y^2 \big)^{-1} (y - A D)

    with the covariance of the model itself. It is exact for normal data. Each of the conjugate gradients costs one
    backward call, and the last product one more.

    Arguments:
        model: The model.
        operator: The linear function A, each row by itself.
        y: The measurements, with leading size B or 1.
        noise: Their standard deviation :math:`\sigma_y`, which must be positive.
        iterations: Of conjugate gradients.
        max_level: The noise level above which the model is not guided; see :func:`universal`.
        data: What else the operator takes, such as masks, each with leading size B or 1.
    """

    iterations = check_count("iterations", iterations, at_least=1)
    if not check_noise(noise) > 0:
        raise ValueError(
            "noise must be positive for moment matching; use pseudoinverse for exact data."
        )
    pull = _Moments(*_measured(operator, y, data), noise, iterations)
    return Pulled(model, pull, max_level)


def _measured(
    operator: Operator, y: Tensor, data: Mapping[str, Tensor]
) -> tuple[Tensor, Measurable, dict[str, Tensor]]:
    rows = as_conditions(data)
    return check_measurement(y), Measurable(operator, rows), rows


def _spread(model: ScoreModel) -> float:
    r"""The standard deviation of the data; its root mean square where that is all that is known."""

    known = model.moments
    return scale_of(model) if known is None else float(known.coordinates.mean().sqrt())


@dataclass(frozen=True)
class _Measured(Pull):
    r"""What was measured of the data."""

    y: Tensor
    operator: Measurable
    data: Mapping[str, Tensor]

    @property
    def held(self) -> Mapping[str, Tensor]:
        return {"y": self.y, **self.data}

    @property
    def words(self) -> str:
        own = [f.name for f in fields(self) if f.name not in ("y", "operator", "data")]
        return f"{self.name} of {self.operator.title} {' '.join(f'{getattr(self, n):g}' for n in own)}"

    def rows(self, index: Tensor) -> Self:
        held = rows_of(self.held, index)
        return replace(self, y=held.pop("y"), data=held)

    def seen(self, D: Tensor, held: Mapping[str, Tensor]) -> tuple[Tensor, Product, Product]:
        r"""Returns what :func:`scoresde.guidance.operators.measure` says of an estimate."""

        data = {name: value for name, value in held.items() if name != "y"}
        return measure(self.operator, D, held["y"], data)


@dataclass(frozen=True)
class _Posterior(_Measured):
    strength: float
    name = "posterior sampling"

    def __call__(
        self, D: Tensor, level: Scalar, covariance: Product, held: Mapping[str, Tensor]
    ) -> Tensor:
        gap, _, adjoint = self.seen(D, held)
        size = row_sum(gap**2).sqrt().clamp(min=torch.finfo(gap.dtype).tiny).to(gap)
        return 2 * self.strength * adjoint(gap / size)


@dataclass(frozen=True)
class _Pseudoinverse(_Measured):
    noise: float
    iterations: int
    std: float
    name = "pseudoinverse"

    def __call__(
        self, D: Tensor, level: Scalar, covariance: Product, held: Mapping[str, Tensor]
    ) -> Tensor:
        gap, A, adjoint = self.seen(D, held)
        variance = level**2 * self.std**2 / (level**2 + self.std**2)

        def system(v: Tensor) -> Tensor:  # consistent whatever the measurements are
            return adjoint(A(variance * v)) + self.noise**2 * v

        return solve(system, adjoint(gap), self.iterations)


@dataclass(frozen=True)
class _Moments(_Measured):
    noise: float
    iterations: int
    name = "moment matching"

    def __call__(
        self, D: Tensor, level: Scalar, covariance: Product, held: Mapping[str, Tensor]
    ) -> Tensor:
        gap, A, adjoint = self.seen(D, held)

        def system(v: Tensor) -> Tensor:
            return A(covariance(adjoint(v))) + self.noise**2 * v

        return adjoint(solve(system, gap, self.iterations, floor=self.noise**2))
