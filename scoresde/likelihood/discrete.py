r"""Bounds on the probability of data on levels, from the density of noisy data.

With noise v, of any density q, inside the bin of each entry,

.. math:: \log P(x) = \log \int_{bin} p \geq \mathbb{E}_q \big[ \log p(x + v) - \log q(v) \big] ,

and K draws inside the logarithm make the bound tighter.

References:
    | Flow++ (Ho et al., 2019), section 3.1, for variational dequantisation
    | https://arxiv.org/abs/1902.00275
    | Improved Techniques for Maximum Likelihood Estimation for Diffusion ODEs (Zheng et al., 2023),
    | section 4.2, for truncated normal noise
    | https://arxiv.org/abs/2305.03935
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from solvers import Solver
from solvers.doors.values import Array
from solvers.noise.brownian import DEQUANTIZE, Seed, keyed_uniform

from ..doors.warning import warn
from ..models.checks import check_count
from ..models.conditions import Condition, verb
from ..models.masked import refuse_mask
from ..models.score_model import ScoreModel
from ..reverse.reverse import Clock
from ..runs.options import SEED, Failures, Gradients, Options, Seeds, Times
from ..runs.run import with_t_min
from ..runs.takes import Takes, check_model
from .batches import DENSITY, OF_DENSITY, with_seed
from .bits import bin_width, check_noise, on_levels
from .result import Likelihood
from .students import error_of_mean
from .verb import log_likelihood

DISCRETE = Takes(
    "a likelihood", *(name for name in DENSITY.names if name != "levels"), *OF_DENSITY
)
CUT = 3.0  # standard deviations of the truncated normal in half a bin
APART = 2.5  # by which data may be farther from the mean than the model's data
NOISY = 0.1  # nats by which noisy terms may raise an importance-weighted bound
Noise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def uniform_noise(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns uniform noise in (-1/2, 1/2), and its log-density."""

    return u - 0.5, torch.zeros(len(x), dtype=torch.float64, device=x.device)


def truncated_normal_noise(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns normal noise, truncated at half a bin (three standard deviations), and its log-density."""

    normal = torch.distributions.Normal(0.0, 1.0)
    low = float(normal.cdf(torch.tensor(-CUT, dtype=torch.float64)))
    z = normal.icdf(low + (1 - 2 * low) * u)
    std = 1 / (2 * CUT)
    logs = -z.square() / 2 - math.log(std * math.sqrt(2 * math.pi)) - math.log(1 - 2 * low)
    return std * z, logs.flatten(1).sum(1)


NOISES: dict[str, Noise] = {"uniform": uniform_noise, "truncated_normal": truncated_normal_noise}


@verb
def discrete_log_likelihood(  # noqa: D417
    model: ScoreModel,
    x: Array,
    *,
    levels: int,
    low: float | None = None,
    high: float | None = None,
    dequantization: str | Noise = "uniform",
    draws: int = 1,
    importance: bool = False,
    divergence: str = "auto",
    probes: int | None = None,
    nodes: int | None = None,
    target_stderr: float | None = None,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Likelihood:
    r"""Returns a lower bound on the log-probability of data on levels.

    Arguments:
        model: The score model.
        x: Data on the levels, with shape (B, *), or the indices of the levels, as integers.
        levels: The number of levels.
        low: The value of the lowest level. By default, -1, with a warning if the model's data is known to lie
            elsewhere.
        high: The value of the highest level. By default, 1.
        dequantization: "uniform" noise in each bin; "truncated_normal" noise with the noise level at `t_min`,
            which then is a sixth of a bin by default, so that models trained on the levels themselves are
            evaluated where they were trained; or a function of data and uniform numbers of its shape that
            returns noise in (-1/2, 1/2), in units of bins, and its log-density, with shape (B,), such as a
            :class:`scoresde.VariationalNoise`.
        draws: The number of noise draws to average. The budget contains their standard error: from their spread,
            or, for a single uniform draw, an upper bound from the slope of the density; otherwise it is NaN.
        importance: Whether to average densities instead of their logarithms, which tightens the bound. It needs
            densities without noise, such as those from exact divergences.
        divergence: As in :func:`scoresde.log_likelihood`, like `probes`, `nodes` and `target_stderr`.
        probes: The number of probes at each node.
        nodes: The number of nodes of the sum.
        target_stderr: The standard error in nats at which a sample gets no more probes.
        condition: The conditions of the model. The options are as in :func:`scoresde.log_likelihood`.

    Raises:
        ValueError, TypeError: If the data is not on the levels, or an option is invalid.

    Examples:
        >>> x = torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
        >>> l = ss.discrete_log_likelihood(model, x, levels=3)
        >>> l.nats.shape, l.levels
        (torch.Size([2]), 3)
    """

    check_model(model)
    options = with_t_min(model, DISCRETE.said(locals()))
    refuse_mask(model, "discrete_log_likelihood", "ss.log_likelihood, or ")
    draws = check_count("draws", draws, at_least=2 if importance else 1)
    unsaid = low is None and high is None
    low, high = -1.0 if low is None else low, 1.0 if high is None else high
    width = bin_width(levels, low, high)
    if isinstance(dequantization, str) and dequantization not in NOISES:
        raise ValueError(
            f"dequantization must be one of {', '.join(NOISES)}, or a function, but is "
            f"{dequantization!r}."
        )
    noise = NOISES[dequantization] if isinstance(dequantization, str) else dequantization
    x = on_levels(x, levels, low, high).double()
    if unsaid:
        _check_range(model, x)
    if dequantization == "truncated_normal" and options.get("t_min") is None:
        options["t_min"] = model.process.at_noise_level(width / (2 * CUT))
    t_min = options.get("t_min")
    start = model.process.start_of("likelihood") if t_min is None else t_min
    check_noise(model.process.noise_level(start), width)
    x = x if options.get("device") is None else x.to(options["device"])
    options, keys, index = _keys(options, x)
    found, terms = [], []
    for draw in range(draws):
        u = keyed_uniform(keys, index, DEQUANTIZE, draw, x[0].numel()).reshape(x.shape)
        v, log_q = _inside(noise(x, u), x)
        one = log_likelihood(model, x + width * v, **_reseeded(options, draw))
        found.append(one)
        if importance:
            _check_terms(one)
        terms.append(one.nats - log_q + one.dimension * math.log(width))
    whole = _averaged(found, torch.stack(terms), levels, importance)
    if draws == 1:
        whole.budget["dequantisation"] = _of_one(whole, width, v, dequantization)
    return whole


def _inside(drawn: object, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns noise and its log-density, and refuses noise that leaves the bins or has no density."""

    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise TypeError(
            "dequantization must return noise and its log-density, but returned a "
            f"{type(drawn).__name__}."
        )
    v, log_q = drawn
    for name, value, shape in (("noise", v, x.shape), ("log-density", log_q, x.shape[:1])):
        if not isinstance(value, Tensor) or value.shape != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"dequantization must return a {name} with shape {tuple(shape)}, but that is {found}."
            )
        if not bool(value.isfinite().all()):
            rows = (~value.isfinite().reshape(len(x), -1).all(1)).nonzero()[:8, 0].tolist()
            raise ValueError(
                f"dequantization returns a {name} that is not finite for samples {rows}; correct the "
                "function."
            )
    if float(v.abs().max()) > 0.5:
        raise ValueError(
            f"dequantization must return noise between -1/2 and 1/2, in bins, but it reaches "
            f"{float(v.abs().max()):.4g}: outside the bin no bound holds."
        )
    return v, log_q


def _of_one(one: Likelihood, width: float, v: Tensor, dequantization: str | Noise) -> Tensor:
    r"""The standard error of one draw v: for uniform noise, a bound from the slope of the density.

    :math:`\operatorname{Var} L \le E[\tau(v) |w \nabla L|^2]` with the Stein kernel
    :math:`\tau(v) = (1/4 - v^2) / 2` of uniform noise, with equality where L is linear (Cacoullos 1982).
    """

    if dequantization != "uniform" or one.slope is None:
        return torch.full_like(one.nats, math.nan)
    weighted = (0.25 - v.double().square()) / 2 * (width * one.slope.double()).square()
    return weighted.flatten(1).sum(1).sqrt()


def _check_range(model: ScoreModel, x: Tensor) -> None:
    r"""Warns if data on levels from -1 to 1 is not in the known range of the model's data."""

    known = model.moments
    if known is None:
        return
    mean = known.mean.double().to(x.device)
    spread = math.sqrt(float((known.coordinates * known.counts).sum()) / mean.numel())
    ratio = (x - mean).square().mean().sqrt().item() / spread
    beyond = (mean.square().mean() + spread**2).sqrt().item()  # at most 1 for data within [-1, 1]
    if beyond > 1.05 or not 1 / APART < ratio < APART:
        warn(
            f"levels are assumed to reach from low=-1 to high=1, but then this data lies {ratio:.2g} "
            "times as far from the mean of the model's data as that data itself (whose root mean square "
            f"is {beyond:.3g}); pass low= and high= of the data."
        )


def _keys(options: Options, x: Tensor) -> tuple[Options, Seed, Tensor]:
    r"""The options with a seed, and the seed and index of each sample's noise."""

    if options.get("seeds") is not None:
        seeds = torch.as_tensor(options["seeds"], dtype=torch.int64, device=x.device)
        if seeds.shape != x.shape[:1]:
            raise ValueError(
                f"seeds must have {len(x)} entries, one per sample, not {len(seeds)}."
            )
        return options, seeds, torch.zeros_like(seeds)
    options = with_seed(options)
    index = torch.arange(len(x), device=x.device) + options.get("first_index", 0)
    return options, options["seed"], index


def _reseeded(options: Options, draw: int) -> Options:
    r"""The options of a draw, which give it its own probes."""

    if options.get("seeds") is not None:
        return {**options, "seeds": [int(seed) + draw * 2**32 for seed in options["seeds"]]}
    return {**options, "seed": options["seed"] + draw * 2**32}


def _check_terms(one: Likelihood) -> None:
    r"""Refuses terms whose noise would raise the bound, from the first draw on."""

    known = one.stderr[~one.nats.isnan()].square()  # a failed sample has no terms
    raised = known.max().item() / 2 if len(known) else 0.0
    if not raised < NOISY:
        raise ValueError(
            f"importance-weighted bounds of noisy terms are too high by half their variance, here by "
            f"up to {raised:.2g} nats; pass divergence='exact', or more probes=."
        )


def _averaged(found: list[Likelihood], terms: Tensor, levels: int, importance: bool) -> Likelihood:
    draws, first = len(terms), found[0]
    squares = torch.stack([one.stderr for one in found]).square()
    if importance:
        nats = terms.logsumexp(0) - math.log(draws)
        shares = (terms - terms.logsumexp(0)).exp()
        weights = (
            draws * shares.detach()
        )  # whose mean is 1, and whose error is that of its logarithm
        error = error_of_mean(weights)
    else:
        nats, error = terms.mean(0), error_of_mean(terms)
        shares = torch.full_like(terms, 1 / draws)
    stderr = (shares.square() * squares).sum(0).sqrt()
    budget = {
        name: torch.stack([one.budget[name] for one in found]).mean(0) for name in first.budget
    }
    budget["probes"] = stderr
    if draws > 1:  # the draws also differ in their probes
        budget["dequantisation"] = (error**2 - stderr**2).clamp(min=0).sqrt()
    causes = [one.status for one in found]
    return replace(
        first,
        nats=nats,
        stderr=stderr,
        calls=torch.stack([one.calls for one in found]).sum(0),
        derivatives=torch.stack([one.derivatives for one in found]).sum(0),
        budget=budget,
        levels=levels,
        status=tuple(max(known, key=_is_failure) for known in zip(*causes, strict=True)),
    )


def _is_failure(status: str) -> bool:
    return status != "ok"
