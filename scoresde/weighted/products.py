r"""Weighted samples whose law at every noise level is a product of powers of densities.

Plain guidance adds scores as if the sum were the score of the noised product, which it is not, because noise
does not preserve products. For densities :math:`q_i` of data with noise of the level s, and exponents
:math:`b_i`, samples of the reverse SDE with the score :math:`S = \sum_i b_i \nabla \log q_i` have the law
:math:`\prod_i q_i^{b_i}` at every s once they carry weights w that grow with :math:`\lambda = - \log s` as

.. math:: d \log w = s^2 \Big( |S|^2 - \sum_i b_i |\nabla \log q_i|^2 \Big) \, d \lambda .

The exponents are :math:`(1 - w, w)` for classifier-free guidance with the scale w, a single :math:`b` for
annealing, and ones for products. Samples are resampled when their weights become uneven.

References:
    | Feynman-Kac Correctors in Diffusion (Skreta et al., 2025), section 3
    | https://arxiv.org/abs/2503.02819
    | Sequential Monte Carlo Samplers (Del Moral et al., 2006), section 3
    | https://doi.org/10.1111/j.1467-9868.2006.00553.x
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from solvers import counting

from ..doors.warning import warn
from ..models.checks import check_alike
from ..models.conditions import verb
from ..models.score_model import ScoreModel
from ..models.spoken import log_volume
from ..runs.progress import bar
from ..runs.takes import check_model
from .particles import Weighted, check_shared, in_form, make_steps, square, start

SLACK = 0.02  # by which chance may make it negative
BALANCED = (0.5, 2.0)  # outside of which the law of the samples is clearly different


@verb(gives=in_form)
def weighted_sample(
    models: Sequence[ScoreModel],
    exponents: Sequence[float],
    count: int,
    *,
    shape: tuple[int, ...] | None = None,
    steps: int = 200,
    grid: str = "log_snr",
    seed: int = 0,
    threshold: float = 0.5,
    t_min: float | None = None,
    progress: bool = False,
) -> Weighted:
    r"""Draws samples from a product of powers of the densities of several models.

    Arguments:
        models: The models, with their conditions bound, of the same process.
        exponents: The exponents :math:`b_i`, with a positive sum. For a model without and with a condition, (1 -
            w, w) is guidance with the scale w.
        count: The number n of samples, which depend on one another through their weights.
        shape: The shape of one sample, for models that do not know it.
        steps: The number of steps; their error is of first order.
        grid: The grid, as in :func:`scoresde.sample`.
        seed: The seed.
        threshold: Samples are resampled, systematically, when their effective number falls below this fraction.
        t_min: The time at which to end. By default, that of the process for sampling.
        progress: Whether to show a progress bar.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the product has no finite mass.

    Examples:
        >>> other = ss.GaussianOracle(torch.ones(2), 0.5)
        >>> s = ss.weighted_sample([model, other], [0.5, 0.5], 100, steps=50)
        >>> round(s.log_normaliser, 1)  # - 2 / (8 x 0.25)
        -1.0
    """

    first, b = _checked(models, exponents)
    plan = make_steps(first, count, steps, grid, seed, threshold, t_min)
    levels, total = plan.levels, sum(b)
    _check_steps(levels, total)
    cloud = start(first, count, shape, levels[0] ** 2 / total, seed)
    d, variance = cloud.x[0].numel(), 2 * math.pi * levels[0] ** 2
    cloud.log_normaliser = d / 2 * ((1 - total) * math.log(variance) - math.log(total))
    cloud.log_normaliser += (1 - total) * log_volume(first, cloud.x)
    fields = [plan.estimates(model, cloud.x) for model in models]
    with counting() as counter, torch.no_grad():
        for i in bar(range(steps), desc="weighted", shown=progress):
            cloud.resample(plan, i)
            s, after, X = levels[i], levels[i + 1], cloud.x
            pulls = [field[i](X) - X for field in fields]
            drift, gain = _combined(pulls, b)
            if i == steps - 1:
                cloud.weigh(drift / s**2)
            cloud.reweigh(
                gain / s**2 * math.log(s / after), first.process.describe(float(plan.times[i]))
            )
            ratio = (after / s) ** 2
            cloud.x = X + (1 - ratio) * drift + after * math.sqrt(1 - ratio) * plan.noise(i, X)
    found = cloud.result(counter.total, steps)
    _check_balance(found.balance, b)
    return found


def _check_balance(balance: float | None, b: list[float]) -> None:
    r"""Refuses, or warns about, samples whose law does not have the score of the product."""

    if balance is None or BALANCED[0] <= balance <= BALANCED[1]:
        return
    said = (
        f"the samples do not have the law of the product with exponents {b}: the mean of -(x - m) S / d, which is "
        f"1 for every law with the score S, is {balance:.3g}"
    )
    if balance < -SLACK:  # for a log-concave product it is not negative for any samples at all
        raise ValueError(
            f"{said}. If it is not positive, the product has no finite mass, since a negative exponent "
            "outweighs the others in the tails, or steps are far too few; choose smaller exponents or more steps=."
        )
    warn(f"{said}; take more steps= and samples.")


def _check_steps(levels: list[float], total: float) -> None:
    r"""Refuses steps that would overshoot."""

    steps = len(levels) - 1
    largest = max(1 - (after / s) ** 2 for s, after in zip(levels[:-1], levels[1:], strict=True))
    if largest * total > 1:
        raise ValueError(
            f"{steps} steps are too few for exponents of sum {total:g}: they would overshoot; take at least "
            f"{math.ceil(steps * largest * total)}."
        )


def _combined(pulls: Sequence[Tensor], b: Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""The weighted sum of the scores, times s^2, and the growth rate of the weights, times s^4."""

    drift = torch.zeros_like(pulls[0])
    squares = torch.zeros(len(drift), dtype=torch.float64, device=drift.device)
    for weight, pull in zip(b, pulls, strict=True):
        drift = drift + weight * pull
        squares = squares + weight * square(pull)
    return drift, square(drift) - squares


def _checked(
    models: Sequence[ScoreModel], exponents: Sequence[float]
) -> tuple[ScoreModel, list[float]]:
    if not models or len(models) != len(exponents):
        raise ValueError(f"there are {len(models)} models for {len(exponents)} exponents.")
    for model in models:
        check_model(model)
    check_alike("models", models)
    check_shared(models)
    b = [float(value) for value in exponents]
    if not all(map(math.isfinite, b)) or not sum(b) > 0:
        raise ValueError(f"exponents must be finite, and their sum positive, but are {b}.")
    return models[0], b
