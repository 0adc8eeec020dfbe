r"""Statistics of a model that tell a solver which linear part leaves the smoothest remainder.

With :math:`X = x_t / \alpha = x_0 + s \epsilon`, :math:`s = \sigma / \alpha` and :math:`z = X - m`, the flow
is :math:`dz = (-l z + f) \, d\lambda` along each axis, with the remainder :math:`f = D - m - (1 - l) z`. There are
two choices of the rate l by noise level. The regression of D on z leaves the smallest remainder, and the mean
slope of D the one with the smallest derivatives, which by Stein's lemma take none to find:

.. math:: 1 - l = \frac{\mathbb{E}[(D - m) z]}{\mathbb{E}[z^2]} , \qquad
    1 - l = \mathbb{E} \Big[ \frac{\partial D}{\partial X} \Big]
    = \frac{1}{s} \, \mathbb{E} [(D - x_0) \, \epsilon] .

For Gaussian data both are the :math:`l = s^2 / (v + s^2)` of moment-matched solvers, and f = 0. The flow keeps
the marginals, so :math:`\mathbb{E}[f \dot f] = \frac12 \frac{d}{d \lambda} \mathbb{E}[f^2]`: the regression of
:math:`\dot f` on f over all paths has the slope :math:`\frac{d}{d \lambda} \log \mathrm{rms}(f)` and, as f is
0 on average, no intercept. So it is f over its root mean square that is closest to a constant.

References:
    | DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics (Zheng et al., 2023),
    | section 3.1, whose l, s and b are the rates from slopes, the slopes of f and their intercepts
    | https://arxiv.org/abs/2310.13268
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array
from solvers.errors import Failure, SolverError
from solvers.noise.brownian import DATA, DATA_NOISE, keyed_normal, keyed_uniform

from ..doors.data import as_seed
from .checks import check_count, check_data, model_dtype
from .curves import Curves
from .data_moments import Moments, moments
from .score_model import ScoreModel

Rates = Literal["regression", "slope"]


@checked
@torch.no_grad()
def statistics(
    model: ScoreModel,
    data: Array,
    *,
    rates: Rates = "regression",
    levels: int = 48,
    samples: int = 512,
    seed: int = 0,
    batch_size: int = 512,
) -> Moments:
    r"""Returns the moments of data with statistics of a model by noise level, for solvers such as "measured_2".

    This takes one call per sample and level. The axes are those of `model.moments`, if it is set, and the
    principal axes of the data otherwise. For a guided model, pass samples of it in place of data.

    Arguments:
        model: A score model, with its conditions bound, each with leading size 1.
        data: The data, with shape (n, *).
        rates: "regression" for the rates that leave the smallest remainder, or "slope" for those of DPM-Solver-v3.
        levels: The number of noise levels, evenly spaced in log-SNR over the domain of the process.
        samples: The number of noised samples at each level.
        seed: The seed of the noise, and of the choice of samples.
        batch_size: The number of samples per call.

    Raises:
        ValueError: If the process has no noise levels, the model is masked, or the data does not fit it.
        SolverError: If the model returns NaN or infinity.

    Examples:
        >>> model.moments = ss.statistics(model, model.data(64, seed=0), levels=8, samples=16)
        >>> ss.sample(model, 4, solver="measured_2", steps=5)
        Solution((4, 2) by measured_2, 5 intervals, 6 calls per sample)
    """

    if rates not in ("regression", "slope"):
        raise ValueError(f"rates must be 'regression' or 'slope', but is {rates!r}.")
    if not model.process.has_scales:
        raise ValueError(
            f"{model.process} has no noise levels with numbers alpha and sigma, and no statistics by level."
        )
    if model.masked:
        raise ValueError("model must not be masked, because the axes mix all entries.")
    count = check_count("levels", levels, at_least=2)
    number, seed = check_count("samples", samples, at_least=2), as_seed("seed", seed)
    size = check_count("batch_size", batch_size, at_least=1)
    x = check_data(model, data, "data", model_dtype(model))
    known = model.moments if isinstance(model.moments, Moments) else moments(x)
    drawn = _drawn(known, x, number, seed)
    process = model.process
    ends = process.log_snr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
    clock = torch.linspace(float(ends[0]), float(ends[1]), count, dtype=torch.float64)
    found = [_at(model, drawn, t, size, rates) for t in clock]
    curves = Curves(
        torch.exp(-clock), *(torch.stack(column) for column in zip(*found, strict=True))
    )
    return replace(known, curves=curves)


class _Drawn(NamedTuple):
    known: Moments
    x: Tensor
    noise: Tensor
    along: Tensor  # the noise along the axes


def _drawn(known: Moments, data: Tensor, number: int, seed: int) -> _Drawn:
    r"""Some of the data, in a seeded order and again if there are too few, and noise."""

    order = keyed_uniform(seed, torch.arange(len(data)), DATA, 0, 1)[:, 0].argsort()
    x = data[order[torch.arange(number) % len(data)].to(data.device)]
    noise = keyed_normal(seed, torch.arange(number), DATA_NOISE, 0, x[0].numel())
    noise = noise.to(x).reshape(x.shape)
    axes = known.like(x)
    return _Drawn(axes, x, noise, axes.split(noise).double().cpu())


def _at(
    model: ScoreModel, drawn: _Drawn, clock: Tensor, size: int, rates: Rates
) -> tuple[Tensor, Tensor]:
    r"""The rates and sizes at a log-SNR.

    The share of D that is linear for Gaussian data is known exactly, and only the rest is estimated.
    """

    axes, x, noise, along = drawn
    t, level = model.process.time(clock), torch.exp(-clock)
    X = x + level.to(x) * noise
    alpha = model.process.scales(t)[0].to(x)
    D = torch.cat([model.denoise(alpha * some, t) for some in X.split(size)])
    bad = (~D.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
    if bad:
        when = f"t={t:.4g} (sigma/alpha={level:.4g})"
        cause = "the model's output is NaN or infinite"
        cure = "raise t_min of the process, or check the network and the size of the data"
        raise SolverError(Failure("nonfinite", tuple(bad), when, cause, cure))
    z, d = (axes.split(y - axes.mean).double().cpu() for y in (X, D))
    variances = axes.coordinates
    slope = variances / (variances + level**2)
    rest, by = d - slope * z, z if rates == "regression" else along
    scale = 1.0 if rates == "regression" else level
    slope = slope + (rest * by).mean(0) / by.square().mean(0) / scale
    return 1 - slope, (d - slope * z).square().mean(0).sqrt()
