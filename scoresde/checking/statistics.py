r"""What tells a right score from a wrong one, noise level by noise level.

With :math:`D = \mathbb{E}[x_0 \mid x_t]`, the error of D is below that of the best linear denoiser, the slope of
:math:`x_0` on D is 1, and by Tweedie's formula of second order

.. math:: \mathbb{E} \| x_0 - D \|^2 = \frac{\sigma^2}{\alpha} \,
    \mathbb{E} \operatorname{tr} \frac{\partial D}{\partial x} .
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.estimate import estimate
from ..models.score_model import ScoreModel
from .levels import SHOWN, Noised, judged, noise_of, noised, time_of

PROBED, DRAWS = 48, 6  # rows of which traces are taken, and probes for each
APART = 1000  # from the numbers of noise to those of probes


class Ratio(NamedTuple):
    r"""A ratio of sums over samples, and its standard error."""

    value: float
    stderr: float

    @classmethod
    def of(cls, above: Tensor, below: Tensor) -> "Ratio":
        r"""Returns the ratio of the sums of two columns, one entry per sample."""

        value = float(above.sum() / below.sum())
        spread = (above - value * below).square().sum().sqrt() / below.sum().abs()
        return cls(value, float(spread))


UNKNOWN = Ratio(math.nan, math.nan)


@dataclass(frozen=True)
class Level:
    r"""The figures of a model at a noise level.

    Arguments:
        noise_level: The noise level :math:`\sigma / \alpha`.
        named: What it would be for data of standard deviation 0.5, for which limits are said.
        t: The time.
        error: The mean square error of the denoised data, against that of the best isotropic linear denoiser.
        slope: The slope of the data on the denoised data, which is 1 for a conditional mean.
        spread: The variance of the denoised data, against that of the data.
        noise_slope: The slope of the predicted noise on the true one, which is negative for flipped signs.
        tweedie: The mean square error against what the derivative says it is.
        other: The error of the model that was passed as `against`, if there is one.
        gain: By how much the logarithm of the error falls from the model to that one, and its standard error.
    """

    noise_level: float
    named: float
    t: float
    error: float
    slope: Ratio
    spread: float
    noise_slope: float
    tweedie: Ratio = UNKNOWN
    other: float | None = None
    gain: Ratio = UNKNOWN


def figures(
    model: ScoreModel,
    data: Tensor,
    std: float,
    seed: int,
    rows: int,
    other: ScoreModel | None = None,
) -> list[Level]:
    r"""Returns the figures of a model at all noise levels.

    Arguments:
        model: The model, with its conditions bound.
        data: The data, with shape (B, *).
        std: Its standard deviation.
        seed: The seed of the noise.
        rows: How many rows are asked at once.
        other: A model to compare with, with its conditions bound.
    """

    found = []
    mean = data.double().mean(0)
    for number, at in enumerate(noised(model.process, data, SHOWN, std, seed)):
        D = denoised(model, at, rows)
        if not bool(D.isfinite().all()):
            found.append(_lost(at))
            continue
        error = _square(D - data)
        a, b = (data.double() - mean).flatten(1), (D - mean).flatten(1)
        noise = ((at.x.double() - at.alpha * D) / at.sigma).flatten(1)
        z = at.z.double().flatten(1)
        tweedie = UNKNOWN
        if judged(at.named):
            tweedie = _tweedie(model, at, error, seed, number, rows)
        theirs, gain = None, UNKNOWN
        if other is not None:
            worse = _square(denoised(other, _moved(at, other), rows) - data)
            theirs, gain = float(worse.mean()) / at.linear, _gain(error, worse)
        found.append(
            Level(
                at.level,
                at.named,
                float(at.t),
                float(error.mean()) / at.linear,
                Ratio.of((a * b).sum(1), (b * b).sum(1)),
                float((D - D.mean(0)).square().sum() / a.square().sum()),
                float((noise * z).sum() / (z * z).sum()),
                tweedie,
                theirs,
                gain,
            )
        )
    return found


def denoised(model: ScoreModel, at: Noised, rows: int) -> Tensor:
    r"""Returns the denoised data in float64, some rows at a time."""

    with torch.no_grad():
        return by_rows(lambda part, x: estimate(part, x, at.t), model, at.x, rows).double()


def by_rows(
    ask: Callable[[ScoreModel, Tensor], Tensor], model: ScoreModel, x: Tensor, rows: int
) -> Tensor:
    r"""Returns what a function says of a model and its states, some rows at a time."""

    if rows >= len(x):
        return ask(model, x)
    parts = torch.arange(len(x)).split(rows)
    return torch.cat([ask(model.rows(index), x[index.to(x.device)]) for index in parts])


def _square(difference: Tensor) -> Tensor:
    r"""The mean square of each row."""

    return difference.flatten(1).square().mean(1)


def _moved(at: Noised, other: ScoreModel) -> Noised:
    r"""The same data and noise at the level of another process."""

    process, t = other.process, time_of(other.process, at.level)
    alpha, sigma = (float(scale) for scale in process.scales(t))
    x = alpha * (at.x - at.sigma * at.z) / at.alpha + sigma * at.z
    return at._replace(t=t, x=x, alpha=alpha, sigma=sigma)


def _gain(mine: Tensor, theirs: Tensor) -> Ratio:
    r"""The fall of the logarithm of the error between two models of the same data and noise."""

    value = math.log(float(mine.sum() / theirs.sum()))
    spread = mine / mine.sum() - theirs / theirs.sum()
    return Ratio(value, float(spread.square().sum().sqrt()))


def _lost(at: Noised) -> Level:
    return Level(at.level, at.named, float(at.t), math.nan, UNKNOWN, math.nan, math.nan)


def _tweedie(
    model: ScoreModel, at: Noised, error: Tensor, seed: int, number: int, rows: int
) -> Ratio:
    r"""The error against what the derivative says, or NaN where there is no derivative."""

    if not model.differentiable:
        return UNKNOWN
    few = min(PROBED, len(at.x))
    x, size = at.x[:few], at.x[0].numel()
    part = model.rows(torch.arange(few)) if few < len(at.x) else model

    def traces(some: ScoreModel, x: Tensor) -> Tensor:
        first = noise_of(x, seed, APART * (number + 1))
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            D = estimate(some, leaf, at.t)
            total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            for draw in range(DRAWS):
                v = first if not draw else noise_of(x, seed, APART * (number + 1) + draw)
                (pulled,) = torch.autograd.grad(D, leaf, v, retain_graph=True)
                total += (pulled * v).flatten(1).double().sum(1)
        return total / DRAWS

    try:
        found = by_rows(traces, part, x, min(rows, few))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # of networks that leave torch, or cut derivatives
        return UNKNOWN
    said = at.sigma**2 / at.alpha * found / size
    if not bool(said.isfinite().all()):
        return UNKNOWN
    return Ratio.of(error[:few], said)
