r"""Inverse problems: data with a measurement :math:`y = A(x_0) + \epsilon`, with normal noise.

Most methods use the gradient of an estimate of :math:`\log p(y \mid x_t)` with respect to the data; one replaces
the measured part of the estimate by the measurement.

References:
    | Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023), algorithm 1
    | https://arxiv.org/abs/2209.14687
    | Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023), equation (7)
    | https://openreview.net/forum?id=9_gsMA8MRKQ
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024),
    | section 4.2, for moment matching
    | https://arxiv.org/abs/2405.13712
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import row_sum

from ..models.checks import check_count, check_finite
from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from ..models.spoken import of_data
from .asked import Noisy
from .guided import Guided
from .operators import Measurement, Operator, check_noise, solve
from .pulled import Known, Pull
from .rule import Rule


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
    r"""Returns the model guided by a measurement, as in diffusion posterior sampling (DPS).

    .. math:: D' = D - \zeta \, V \, \frac{\nabla |y - A(D)|^2}{|y - A(D)|}

    The division makes it robust, but the result is not a posterior for any noise. This is its form as a score;
    the paper moves the state by the gradient once per step, at any noise level, so its strengths have a
    different scale.

    Arguments:
        model: The model.
        operator: The function A, which acts on each row separately.
        y: The measurements, with leading size B or 1.
        strength: The :math:`\zeta`.
        max_level: The noise level above which the model is not guided; see :func:`universal`.
        data: Further arguments of the operator, such as masks, each with leading size B or 1.

    Raises:
        TypeError: If it is given `noise`, which this method does not use.

    Examples:
        >>> first, y = lambda x: x[:, :1], torch.ones(1, 1)
        >>> guided = ss.guidance.posterior_sampling(model, first, y)
        >>> guided.denoise(torch.zeros(1, 2), torch.tensor([0.5]))  # 2 V = 0.25
        tensor([[0.2500, 0.0000]])
    """

    strength = check_finite("strength", strength)
    if "noise" in data and not isinstance(data["noise"], Tensor):
        raise TypeError(
            "posterior_sampling takes no noise=, since it divides by the norm of the residual; pass "
            "strength=, or use pseudoinverse or moment_matching, which take noise=."
        )
    known = Measurement.of(of_data(model, operator), y, data)
    return Guided((model,), PosteriorSampling(known, strength, max_level=max_level))


@dataclass(frozen=True)
class PosteriorSampling(Pull):
    r"""See :func:`posterior_sampling`."""

    measured: Measurement
    strength: float

    def __call__(self, D: Tensor, known: Known) -> Tensor:
        gap, _, adjoint = self.measured.seen(D)
        size = row_sum(gap**2).sqrt().clamp(min=torch.finfo(gap.dtype).tiny).to(gap)
        return 2 * self.strength * adjoint(gap / size)


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
    r"""Returns the model guided by a linear measurement: pseudoinverse guidance (PiGDM).

    .. math:: D' = D + V \big( r^2 A^T A + \sigma_y^2 \big)^{-1} A^T (y - A D) , \qquad
        r^2 = \frac{s^2 c^2}{s^2 + c^2}

    for data with standard deviation c, as if data given its noisy state were normal with variance :math:`r^2`.
    The system is solved by conjugate gradients, without network calls.

    Arguments:
        model: The model.
        operator: The linear function A, which acts on each row separately.
        y: The measurements, with leading size B or 1.
        noise: Their standard deviation :math:`\sigma_y`.
        iterations: The number of iterations of conjugate gradients.
        max_level: The noise level above which the model is not guided; see :func:`universal`.
        data: Further arguments of the operator, such as masks, each with leading size B or 1.

    Examples:
        >>> first, y = lambda x: x[:, :1], torch.ones(1, 1)
        >>> guided = ss.guidance.pseudoinverse(model, first, y)
        >>> guided.denoise(torch.zeros(1, 2), torch.tensor([0.5]))
        tensor([[1., 0.]])
    """

    iterations = check_count("iterations", iterations, at_least=1)
    known, noise = Measurement.of(of_data(model, operator), y, data), check_noise(noise)
    rule = Pseudoinverse(known, noise, iterations, _spread(model), max_level=max_level)
    return Guided((model,), rule)


def _spread(model: ScoreModel) -> float:
    r"""The standard deviation of the data, or its root mean square if only that is known."""

    known = model.moments
    return scale_of(model) if known is None else float(known.coordinates.mean().sqrt())


@dataclass(frozen=True)
class Pseudoinverse(Pull):
    r"""See :func:`pseudoinverse`."""

    measured: Measurement
    noise: float
    iterations: int
    std: float

    def __call__(self, D: Tensor, known: Known) -> Tensor:
        gap, A, adjoint = self.measured.seen(D)
        variance = known.level**2 * self.std**2 / (known.level**2 + self.std**2)

        def system(v: Tensor) -> Tensor:  # consistent for all measurements
            return adjoint(A(variance * v)) + self.noise**2 * v

        return solve(system, adjoint(gap), self.iterations)


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
    r"""Returns the model guided by a linear measurement: moment matching posterior sampling (MMPS).

    .. math:: D' = D + V A^T \big( A V A^T + \sigma_y^2 \big)^{-1} (y - A D)

    with the model's own covariance V. It is exact for normal data. Each iteration of conjugate
    gradients costs one backward call, and the last product one more.

    Arguments:
        model: The model.
        operator: The linear function A, which acts on each row separately.
        y: The measurements, with leading size B or 1.
        noise: Their standard deviation :math:`\sigma_y`, which must be positive.
        iterations: The number of iterations of conjugate gradients.
        max_level: The noise level above which the model is not guided; see :func:`universal`.
        data: Further arguments of the operator, such as masks, each with leading size B or 1.

    Raises:
        ValueError: If `noise` is not positive.

    Examples:
        >>> first, y = lambda x: x[:, :1], torch.ones(1, 1)
        >>> guided = ss.guidance.moment_matching(model, first, y, noise=0.5)
        >>> D = guided.denoise(torch.zeros(1, 2), torch.tensor([0.5]))
        >>> [round(value, 4) for value in D[0].tolist()]  # 0.125 / (0.125 + 0.25)
        [0.3333, 0.0]
    """

    iterations = check_count("iterations", iterations, at_least=1)
    if not check_noise(noise) > 0:
        raise ValueError(
            "noise must be positive for moment matching; use pseudoinverse for measurements without noise."
        )
    known = Measurement.of(of_data(model, operator), y, data)
    return Guided((model,), MomentMatching(known, noise, iterations, max_level=max_level))


@dataclass(frozen=True)
class MomentMatching(Pull):
    r"""See :func:`moment_matching`."""

    measured: Measurement
    noise: float
    iterations: int

    def __call__(self, D: Tensor, known: Known) -> Tensor:
        gap, A, adjoint = self.measured.seen(D)

        def system(v: Tensor) -> Tensor:
            return A(known.covariance(adjoint(v))) + self.noise**2 * v

        return adjoint(solve(system, gap, self.iterations, floor=self.noise**2))


@checked
def replacement(
    model: ScoreModel, operator: Operator, y: Tensor, *, iterations: int = 20, **data: Tensor
) -> ScoreModel:
    r"""Returns the model whose denoised data agrees with a linear measurement without noise, as in DDNM.

    .. math:: D + A^+ (y - A D) , \qquad A^+ = A^T (A A^T)^+

    It needs no gradient through the model. It changes only the measured part, so the rest is biased where it
    depends on that part; :func:`pseudoinverse` changes both. The system is solved by conjugate gradients.

    Arguments:
        model: The model.
        operator: The linear function A, which acts on each row separately.
        y: The measurements, with leading size B or 1.
        iterations: The number of iterations of conjugate gradients.
        data: Further arguments of the operator, such as masks, each with leading size B or 1.

    References:
        | Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model (Wang et al., 2023), equation (11)
        | https://arxiv.org/abs/2212.00490

    Examples:
        >>> first, y = lambda x: x[:, :1], torch.full((1, 1), 2.0)
        >>> guided = ss.guidance.replacement(model, first, y)
        >>> guided.denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[2.0000, 0.5000]])
    """

    iterations = check_count("iterations", iterations, at_least=1)
    known = Measurement.of(of_data(model, operator), y, data, affine=True)
    return Guided((model,), Replacement(known, iterations))


@dataclass(frozen=True)
class Replacement(Rule):
    r"""See :func:`replacement`."""

    measured: Measurement
    iterations: int
    smooth = False

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        gap, A, adjoint = self.measured.seen(D)
        return D + solve(lambda v: adjoint(A(v)), adjoint(gap), self.iterations)
