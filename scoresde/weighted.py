r"""Samples with weights, whose law at every noise level is a product of powers of densities.

Plain guidance adds scores as if the sum were the score of noisy products, which it is not: noise does not keep
products. For densities :math:`q_i` of data with noise of the level s, and exponents :math:`b_i`, samples of the
reverse SDE with the score :math:`S = \sum_i b_i \nabla \log q_i` have the law :math:`\prod_i q_i^{b_i}` at
every s once they carry weights w that grow with :math:`\lambda = - \log s` as

.. math:: d \log w = s^2 \Big( |S|^2 - \sum_i b_i |\nabla \log q_i|^2 \Big) \, d \lambda .

For classifier-free guidance of the scale w the exponents are :math:`(1 - w, w)`, for annealing one :math:`b`, for
products ones. Samples whose weights have become uneven are drawn anew from themselves.

References:
    | Feynman-Kac Correctors in Diffusion (Skreta et al., 2025), section 3
    | https://arxiv.org/abs/2503.02819
    | Sequential Monte Carlo Samplers (Del Moral et al., 2006), section 3
    | https://doi.org/10.1111/j.1467-9868.2006.00553.x
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from solvers import Failure, SolverError, counting
from solvers.brownian import EDITS, STEPS, keyed_normal, keyed_uniform

from .checks import check_count, check_number, model_device, model_dtype
from .grids import grid_times
from .models import ScoreModel
from .settings import check_model


@dataclass(frozen=True)
class Weighted:
    r"""Samples with weights.

    Arguments:
        x: The samples, with shape (n, \*), with noise of the level at `t_min`.
        log_weights: The logarithms of their weights, whose sum is 1, with shape (n,), in float64.
        log_normaliser: The logarithm of the estimate of :math:`\int \prod_i q_i^{b_i}`, which is unbiased up to
            the error of the steps.
        sizes: The effective number of samples before each step, :math:`1 / \sum w^2`.
        resampled: How often samples were drawn anew.
        calls: The network calls, with shape (n,).
    """

    x: Tensor
    log_weights: Tensor
    log_normaliser: float
    sizes: Tensor
    resampled: int
    calls: Tensor

    def mean(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        r"""Returns the weighted mean of a function of the samples.

        Arguments:
            function: From samples, with shape (n, \*), to values, with shape (n, ...).
        """

        return torch.einsum("n,n...->...", self.log_weights.exp(), function(self.x).double())


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
    r"""Draws samples of a product of powers of the densities of some models.

    Arguments:
        models: The models, with their conditions bound, which share a process.
        exponents: The exponents :math:`b_i`, of positive sum. (1 - w, w) for a model without and with a
            condition is guidance of the scale w.
        count: The number n of samples, which depend on one another through their weights.
        shape: The shape of one sample, for models that do not know it.
        steps: The steps; their error is of first order.
        grid: The grid, as in :func:`scoresde.sample`.
        seed: The seed.
        threshold: Samples are drawn anew, systematically, when their effective number is below this share.
        t_min: The time at which to end. By default, the process's for sampling.
        progress: Whether to show a progress bar.

    Raises:
        ValueError, TypeError: If something does not fit.
    """

    first, b = _checked(models, exponents)
    check_count("count", count, at_least=2)
    check_count("steps", steps, at_least=1)
    check_number("threshold", threshold)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], but is {threshold}.")
    process = first.process
    stop = process.start_of("sampling") if t_min is None else t_min
    times = grid_times(process, grid, process.t_max, stop, steps, first.data_std)
    alphas, levels = process.scales(times)[0].tolist(), torch.exp(-process.log_snr(times)).tolist()
    _check_steps(levels, sum(b))
    X, mass = _start(first, count, shape, levels[0], sum(b), seed)
    rows, even = torch.arange(count, device=X.device), -math.log(count)
    log_w, sizes, again = torch.full((count,), even).to(X.device).double(), [], 0
    with counting() as counter, torch.no_grad():
        for i in tqdm(range(steps), disable=not progress, desc="weighted"):
            sizes.append(float(1 / (2 * log_w).exp().sum()))
            if sizes[-1] < threshold * count:
                shift = keyed_uniform(seed, rows[:1], EDITS, i + 1, 1)[0, 0]
                X, log_w, again = (
                    X[_systematic(log_w, shift)],
                    torch.full_like(log_w, even),
                    again + 1,
                )
            s, after = levels[i], levels[i + 1]
            pulls = [model.denoise(alphas[i] * X, times[i]) - X for model in models]
            drift, gain = _combined(pulls, b)
            log_w = log_w + gain / s**2 * math.log(s / after)
            mass, log_w = mass + float(log_w.logsumexp(0)), log_w - log_w.logsumexp(0)
            _check_finite(X, log_w, process.describe(float(times[i])))
            ratio = (after / s) ** 2
            z = keyed_normal(seed, rows, STEPS, i, X[0].numel(), X.dtype).reshape(X.shape)
            X = X + (1 - ratio) * drift + after * math.sqrt(1 - ratio) * z
    calls = torch.full((count,), counter.total)
    return Weighted(X, log_w, mass, torch.tensor(sizes), again, calls)


def _check_steps(levels: list[float], total: float) -> None:
    r"""Refuses steps that would overshoot."""

    steps = len(levels) - 1
    largest = max(1 - (after / s) ** 2 for s, after in zip(levels[:-1], levels[1:], strict=True))
    if largest * total > 1:
        raise ValueError(
            f"{steps} steps are too few for exponents of sum {total:g}: they would overshoot; take at least "
            f"{math.ceil(steps * largest * total)}."
        )


def _start(
    model: ScoreModel,
    count: int,
    shape: tuple[int, ...] | None,
    level: float,
    total: float,
    seed: int,
) -> tuple[Tensor, float]:
    r"""Samples of the product of powers of the prior, and the logarithm of its mass."""

    size = shape or model.shape
    if size is None:
        raise ValueError("these models do not know the shape of a sample; pass shape=.")
    device, dtype, d = (
        model_device(model) or torch.device("cpu"),
        model_dtype(model),
        math.prod(size),
    )
    z = keyed_normal(seed, torch.arange(count, device=device), EDITS, 0, d)
    mass = d / 2 * ((1 - total) * math.log(2 * math.pi * level**2) - math.log(total))
    return (level / math.sqrt(total) * z).to(dtype).reshape(count, *size), mass


def _combined(pulls: Sequence[Tensor], b: Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""The sum of the scores with their exponents, and what weights grow by, both times s^2 and s^4."""

    drift = torch.zeros_like(pulls[0])
    squares = torch.zeros(len(drift), dtype=torch.float64, device=drift.device)
    for weight, pull in zip(b, pulls, strict=True):
        drift = drift + weight * pull
        squares = squares + weight * _square(pull)
    return drift, _square(drift) - squares


def _checked(
    models: Sequence[ScoreModel], exponents: Sequence[float]
) -> tuple[ScoreModel, list[float]]:
    if not models or len(models) != len(exponents):
        raise ValueError(f"there are {len(models)} models for {len(exponents)} exponents.")
    for model in models:
        check_model(model)
        if model.process != models[0].process:
            raise ValueError(
                f"models must share a process, but have {models[0].process} and {model.process}."
            )
        bound = [v for m in model.modules() for v in getattr(m, "bound", {}).values()]
        if any(len(value) > 1 for value in bound):
            raise ValueError(
                "conditions must be the same for all samples, which are drawn anew from one another; make one "
                "call for each."
            )
    b = [float(value) for value in exponents]
    if not all(map(math.isfinite, b)) or not sum(b) > 0:
        raise ValueError(f"exponents must be finite, and their sum positive, but are {b}.")
    return models[0], b


def _check_finite(X: Tensor, log_w: Tensor, when: str) -> None:
    bad = (~(X.flatten(1).isfinite().all(1) & log_w.isfinite())).nonzero()[:, 0].tolist()
    if bad:
        raise SolverError(Failure("nonfinite", tuple(bad), when))


def _square(x: Tensor) -> Tensor:
    return x.double().flatten(1).square().sum(1)


def _systematic(log_w: Tensor, shift: Tensor) -> Tensor:
    r"""Rows that are drawn by their weights, evenly spaced with one random shift."""

    n = len(log_w)
    edges = log_w.exp().cumsum(0)
    places = (torch.arange(n, device=log_w.device) + shift) / n
    return torch.searchsorted(edges, places * edges[-1]).clamp(max=n - 1)
