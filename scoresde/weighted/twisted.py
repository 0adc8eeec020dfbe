r"""Weighted samples of the posterior of data, given any likelihood.

The chain of the reverse SDE has steps :math:`X' \sim N(m, v)`, with

.. math:: m = X + (1 - \rho) (D - X) , \qquad v = s'^2 (1 - \rho) , \qquad \rho = s'^2 / s^2 ,

in units of the data at the noise levels s and s'. Twisted by any estimate :math:`\tau(X)` of
:math:`p(y \mid X)`, they are :math:`X' \sim N(m + \delta, v)` with
:math:`\delta = (1 - \rho) \, s^2 \nabla \log \tau(X)`, and weights grow by

.. math:: \frac{N(X'; m, v)}{N(X'; m + \delta, v)} \, \frac{\tau(X')}{\tau(X)} .

With the true :math:`p(y \mid x_0)` at the end, the samples have the posterior law of the chain, whatever the
earlier estimates were; these only decide how even the weights are.

References:
    | Practical and Asymptotically Exact Conditional Sampling in Diffusion Models (Wu et al., 2023), algorithm 1
    | https://arxiv.org/abs/2306.17775
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from solvers import counting
from solvers.problem import StateField

from ..guidance.gradients import check_function, check_gradients, gradient_of, one_per_row
from ..guidance.trust import trusted_level
from ..models.conditions import as_conditions, verb
from ..models.derivative import check_derivative
from ..models.score_model import ScoreModel
from ..runs.progress import bar
from ..runs.takes import check_model
from .particles import Weighted, check_shared, in_form, make_steps, square, start

Twist = Callable[..., Tensor]


@verb(functions=("log_prob",), gives=in_form)
def twisted_sample(
    model: ScoreModel,
    log_prob: Twist,
    count: int,
    *,
    shape: tuple[int, ...] | None = None,
    steps: int = 100,
    grid: str = "log_snr",
    seed: int = 0,
    threshold: float = 0.5,
    t_min: float | None = None,
    progress: bool = False,
    **data: Tensor,
) -> Weighted:
    r"""Draws samples of the posterior of data, :math:`p(x) \, p(y \mid x) / p(y)`, by twisted diffusion (TDS).

    Arguments:
        model: The model, with its conditions bound.
        log_prob: A function `log_prob(D, level, **data)` of the denoised data, with shape (n, \*), and the noise
            level from which it was denoised, a number. It returns an estimate of :math:`\log p(y \mid x_t)`,
            with shape (n,), which at the level 0 must be :math:`\log p(y \mid x_0)` itself. For normal
            measurement noise, use the sum of its variance and that of data given its noisy state.
        count: The number n of samples, which depend on one another through their weights.
        shape: The shape of one sample, for models that do not know it.
        steps: The number of steps.
        grid: The grid, as in :func:`scoresde.sample`.
        seed: The seed.
        threshold: Samples are resampled, systematically, when their effective number falls below this fraction.
        t_min: The time at which to end. By default, that of the process for sampling.
        progress: Whether to show a progress bar.
        data: Further arguments of `log_prob`, such as measurements, each with leading size 1.

    Raises:
        ValueError, TypeError: If an argument is invalid. SolverError: If a state or weight is not finite.

    Examples:
        >>> log_prob = lambda D, level, y: -2 * (D[:, 0] - y) ** 2  # a measurement of variance 0.25
        >>> s = ss.twisted_sample(model, log_prob, 400, steps=50, y=torch.tensor([0.5]))
        >>> abs(float(s.mean(lambda x: x)[0]) - 0.25) < 0.1
        True
    """

    data = _checked(model, log_prob, data)
    plan = make_steps(model, count, steps, grid, seed, threshold, t_min)
    levels, cloud = plan.levels, start(model, count, shape, plan.levels[0] ** 2, seed)

    check_derivative(model, cloud.x, "reverse", "a twist")
    fields = plan.estimates(model, cloud.x)
    limit = trusted_level(model, cloud.x, count)  # weights correct for any guidance
    here = {name: value.to(cloud.x.device) for name, value in data.items()}

    def look(i: int) -> tuple[Tensor, Tensor, Tensor]:
        level = levels[i] if i < steps else 0.0
        D, told, gradient = _looked(fields[i], log_prob, cloud.x, level, here)
        return D, told, gradient if level <= limit else torch.zeros_like(gradient)

    with counting() as counter:
        D, told, gradient = look(0)
        cloud.reweigh(told, model.process.describe(float(plan.times[0])))
        for i in bar(range(steps), desc="twisted", shown=progress):
            index = cloud.resample(plan, i)
            if index is not None:
                D, told, gradient = D[index], told[index], gradient[index]
            ratio = (levels[i + 1] / levels[i]) ** 2
            std = levels[i + 1] * math.sqrt(1 - ratio)
            shift, z = (1 - ratio) * levels[i] ** 2 * gradient, plan.noise(i, cloud.x)
            cloud.x = cloud.x + (1 - ratio) * (D - cloud.x) + shift + std * z
            before, (D, told, gradient) = told, look(i + 1)
            apart = (square(z) - square(z + shift / std)) / 2
            cloud.reweigh(apart + told - before, model.process.describe(float(plan.times[i + 1])))
    return cloud.result(counter.total, steps)


def _checked(model: ScoreModel, log_prob: Twist, data: Mapping[str, object]) -> dict[str, Tensor]:
    r"""Returns the log-likelihood function, after checking that the model can be twisted by it."""

    check_model(model)
    known = as_conditions(data)
    check_function("log_prob", log_prob, known, ("D", "level"))
    check_shared([model], known.values())
    if not model.differentiable:
        raise ValueError(
            f"{model!r} has no gradients to guide samples by; pass the model that it wraps."
        )
    check_gradients()
    return known


def _looked(
    estimate: StateField, log_prob: Twist, X: Tensor, level: float, data: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The denoised data, the log-probabilities, and their gradient with respect to X."""

    check_gradients()
    with torch.enable_grad():
        leaf = X.detach().requires_grad_()
        D = estimate(leaf)
        found = one_per_row("log_prob", log_prob(D, level, **data), X)
        gradient = gradient_of("log_prob", found, leaf)
    return D.detach(), found.detach().double(), gradient
