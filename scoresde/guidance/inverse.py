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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from solvers.shapes import Scalar

from ..checks import check_count, check_finite
from ..conditions import rows_of
from ..models import ScoreModel
from .combined import row_sum
from .gradients import check_gradients
from .pulled import Product, Pull, Pulled

Operator = Callable[..., Tensor]  # `operator(x, **data)`, from data (B, *) to measurements (B, *)


def posterior_sampling(
    model: ScoreModel, operator: Operator, y: Tensor, *, strength: float = 1.0, **data: Tensor
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
        data: What else the operator takes, such as masks, each with leading size B or 1.
    """

    check_finite("strength", strength)
    return Pulled(
        model,
        _Measured(check_measurement(y), operator, data, "posterior sampling", strength=strength),
    )


def pseudoinverse(
    model: ScoreModel,
    operator: Operator,
    y: Tensor,
    *,
    noise: float = 0.0,
    iterations: int = 20,
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
        data: What else the operator takes, such as masks, each with leading size B or 1.
    """

    check_count("iterations", iterations, at_least=1)
    rule = _Measured(
        check_measurement(y),
        operator,
        data,
        "pseudoinverse",
        _noise(noise),
        iterations,
        model.data_std,
    )
    return Pulled(model, rule)


def moment_matching(
    model: ScoreModel,
    operator: Operator,
    y: Tensor,
    *,
    noise: float,
    iterations: int = 5,
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
        data: What else the operator takes, such as masks, each with leading size B or 1.
    """

    check_count("iterations", iterations, at_least=1)
    if not _noise(noise) > 0:
        raise ValueError(
            "noise must be positive for moment matching; use pseudoinverse for exact data."
        )
    return Pulled(
        model,
        _Measured(check_measurement(y), operator, data, "moment matching", noise, iterations),
    )


def joined(
    operators: Sequence[Operator], ys: Sequence[Tensor], noises: Sequence[float]
) -> tuple[Operator, Tensor]:
    r"""Returns several measurements as one, of which the noise has a standard deviation of 1: pass `noise=1`.

    Each is divided by its own, :math:`(A_1(x) / \sigma_1, A_2(x) / \sigma_2, \dots)`, and made flat.

    Arguments:
        operators: The functions, each row by itself. All get all data.
        ys: The measurements of each, with leading size B or 1.
        noises: Their standard deviations, which must be positive.
    """

    counts = (len(operators), len(ys), len(noises))
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"each operator needs its measurement and its noise, but there are {', '.join(map(str, counts))}."
        )
    stds = [_noise(noise) for noise in noises]
    if not min(stds) > 0:
        raise ValueError(f"noises must be positive, but are {list(noises)}.")

    def measured(x: Tensor, **data: Tensor) -> Tensor:
        parts = [
            A(x, **data).reshape(len(x), -1) / s for A, s in zip(operators, stds, strict=True)
        ]
        return torch.cat(parts, 1)

    flat = [check_measurement(y).reshape(len(y), -1) / s for y, s in zip(ys, stds, strict=True)]
    size = max(map(len, flat))
    if {*map(len, flat)} - {1, size}:
        raise ValueError(
            f"ys must have one leading size, or 1, but have {[len(y) for y in flat]}."
        )
    return measured, torch.cat([y.expand(size, -1) for y in flat], 1)


@dataclass(frozen=True)
class _Measured(Pull):
    y: Tensor
    operator: Operator
    data: Mapping[str, Tensor]
    name: str
    noise: float = 0.0
    iterations: int = 1
    std: float = 1.0
    strength: float = 1.0

    def __call__(self, D: Tensor, level: Scalar, covariance: Product) -> Tensor:
        gap, measure, adjoint = measured(self.operator, D, self.y, self.data)
        if self.name == "posterior sampling":
            size = row_sum(gap**2).sqrt().clamp(min=torch.finfo(gap.dtype).tiny).to(gap)
            return 2 * self.strength * adjoint(gap / size)
        if self.name == "pseudoinverse":
            variance = level**2 * self.std**2 / (level**2 + self.std**2)

            def normal(v: Tensor) -> Tensor:  # consistent whatever the measurements are
                return adjoint(measure(variance * v)) + self.noise**2 * v

            return solved(normal, adjoint(gap), self.iterations)

        def system(v: Tensor) -> Tensor:
            return measure(covariance(adjoint(v))) + self.noise**2 * v

        return adjoint(solved(system, gap, self.iterations, floor=self.noise**2))

    @property
    def words(self) -> str:
        operator = getattr(self.operator, "__qualname__", type(self.operator).__name__)
        return f"{self.name} of {operator} {self.noise:g} {self.iterations} {self.std:g} {self.strength:g}"

    def rows(self, index: Tensor) -> Self:
        y = self.y if len(self.y) == 1 else self.y[index.to(self.y.device)]
        return replace(self, y=y, data=rows_of(self.data, index))


def measured(
    operator: Operator, D: Tensor, y: Tensor, data: Mapping[str, Tensor]
) -> tuple[Tensor, Product, Product]:
    r"""Returns the gap y - A(D), the function A, and the product with the transpose of its derivative at D."""

    check_gradients()
    here = {name: value.to(D.device) for name, value in data.items()}
    with torch.enable_grad():
        leaf = D.detach().requires_grad_()
        seen = operator(leaf, **here)
    if len(y) not in (1, len(D)):
        raise ValueError(f"y must have leading size {len(D)} or 1, but has {len(y)}.")
    known = y.to(D).expand(len(D), *y.shape[1:])
    if not isinstance(seen, Tensor) or seen.shape != known.shape:
        shape = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise ValueError(
            f"y must have the shape of what the operator returns, {shape}, but has {tuple(known.shape)}."
        )
    if not seen.requires_grad:
        raise ValueError(
            "the operator has no gradient: leave out .detach(), rounding and no_grad."
        )

    def adjoint(v: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(seen, leaf, v, retain_graph=True)
        return back

    return known - seen.detach(), lambda x: operator(x, **here), adjoint


def solved(system: Product, right: Tensor, iterations: int, floor: float = 0.0) -> Tensor:
    r"""Returns the solution of a positive system by conjugate gradients, for each row until it is solved.

    It ends where the system is less than a floor along a step: there a network's derivatives are no covariance.
    """

    with torch.no_grad():
        x, rest = torch.zeros_like(right), right.clone()
        step, size = rest.clone(), row_sum(rest.double() ** 2)
        enough = size * torch.finfo(right.dtype).eps ** 2
        for _ in range(iterations):
            image = system(step)
            curve = row_sum(step.double() * image)
            going = (size > enough) & (curve > 0) & (curve >= floor * row_sum(step.double() ** 2))
            share = torch.where(going, size / curve, 0.0).to(right)
            x, rest = x + share * step, rest - share * image
            after = row_sum(rest.double() ** 2)
            step = rest + torch.where(going, after / size, 0.0).to(right) * step
            size = torch.where(going, after, size)
    return x


def check_measurement(y: Tensor) -> Tensor:
    r"""Returns measurements, refused unless they are finite numbers."""

    if not isinstance(y, Tensor) or not y.is_floating_point() or not y.ndim:
        raise TypeError("y must be a tensor of floating-point numbers, with leading size B or 1.")
    if not bool(y.isfinite().all()):
        raise ValueError("y must be finite, but has NaN or infinite entries.")
    return y


def _noise(noise: float) -> float:
    check_finite("noise", noise)
    if noise < 0:
        raise ValueError(f"noise must be at least 0, but is {noise}.")
    return noise
