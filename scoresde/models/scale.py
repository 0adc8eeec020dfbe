r"""The scale of the data, and checks that the noise begins above it and ends below it.

If data has the standard deviation l along some direction, samples that start from a prior with the noise level s
have :math:`l / \sqrt{1 + l^2 / s^2}`, since the prior contains no data. The last denoising at the level s
returns :math:`l / \sqrt{1 + s^2 / l^2}`, the deviation of :math:`\mathbb{E}[x_0 \mid x]`. Both are 95 % of l
where the smaller of l and s is a third of the other.
"""

import math

import torch
from torch import Tensor

from ..doors.warning import warn
from ..processes.process import NOISE_LEVELS, PRIOR_GAP, Use
from .data_moments import Moments
from .score_model import UNSAID, ScoreModel

THIRD = 1 / 3  # ratio at which 5 % of a deviation is lost
TENTH = 1 / 10  # ratio at which half a percent is lost
UNLIKE = 0.2  # relative difference of scores that belong to different laws


def scale_of(model: ScoreModel) -> float:
    r"""Returns the root mean square of the data, or the assumed value if it is not known."""

    known = model.data_scale
    return UNSAID if known is None else known


def smoothness_of(model: ScoreModel) -> float:
    r"""Returns the standard deviation of the Gaussian noise that the data certainly contains, possibly 0.

    It does not follow from moments: modes far apart have large moments, and may be points.
    """

    return model._finest or 0.0


def ask_scale(model: ScoreModel, what: str) -> None:
    r"""Warns that a result depends on the scale of the data, if that is not known."""

    if model.data_scale is None:
        warn(
            f"{what} depends on the scale of the data, which is not known: its root mean square is "
            f"assumed to be {UNSAID}; set model.data_scale, or model.moments = ss.moments(data)."
        )


def start_of(model: ScoreModel, use: Use) -> float:
    r"""Returns the default of `t_min`: that of the process, or lower if the data is finer."""

    process, finest = model.process, model.finest
    start = process.bare_start_of(use)
    if (
        finest is None
        or not process.has_levels
        or process.bare_noise_level(start) <= THIRD * finest
    ):
        return start
    return process.bare_at_noise_level(min(NOISE_LEVELS[use], TENTH * finest))


def check_prior(model: ScoreModel, first: float) -> None:
    r"""Warns if a run starts from noise that does not cover the data.

    Arguments:
        model: The score model.
        first: The first time, the nearest to data of all samples.
    """

    process, scale = model.process, model.data_scale
    if scale is None or not process.has_levels:
        return
    level = process.bare_noise_level(first)
    gap = scale**2 / level**2 / 2
    if gap > PRIOR_GAP:
        warn(
            f"at {process.describe(first)}, noise alone is {gap:.3g} nats per dimension from noised "
            f"data, whose root mean square is {scale:.4g}: samples are biased; start at a noise level of "
            f"{scale / math.sqrt(2 * PRIOR_GAP):.3g} or more, or scale the data down."
        )
    elif isinstance(model.moments, Moments) and model.moments.widest > THIRD * level:
        widest = model.moments.widest
        warn(
            f"at {process.describe(first)}, noise does not cover the direction in which the data has "
            f"the standard deviation {widest:.4g}: samples have {_kept(level / widest):.0%} of it; start "
            "at a higher noise level, or scale the data down."
        )


def check_marginal(model: ScoreModel, z: Tensor) -> None:
    r"""Warns if the prior of a process without scales is not the law at t_max, as judged by the score.

    The score of :math:`\mathcal{N}(m, s^2 I)` is :math:`(m - x) / s^2`. The model is called once, and the call is
    not counted.

    Arguments:
        model: The score model.
        z: Draws from the prior, with shape (B, *).
    """

    process = model.process
    if vars(model).get("_asked_at_prior"):
        return
    std = process.prior_std()
    with torch.no_grad():
        score = model.score(z, torch.tensor(process.t_max, dtype=torch.float64))
    model._asked_at_prior = True
    off = (score * std + process.standardised(z)).square().mean().sqrt().item()
    if off > UNLIKE:
        centred = bool((process.standardised(z) == z / std).all())
        mean, wrong = ("0", "std= is wrong") if centred else ("mean", "mean= or std= is wrong")
        warn(
            f"at t_max={process.t_max:.4g}, the score differs from that of the prior N({mean}, {std:.4g}^2) by "
            f"{off:.0%}: the process has not forgotten the data there, or {wrong}; raise t_max, or "
            "set std=."
        )


def check_last(model: ScoreModel, last: float) -> None:
    r"""Warns if the last denoising removes the variation of the data in its finest direction.

    Arguments:
        model: The score model.
        last: The last time, the farthest from data of all samples.
    """

    process, finest = model.process, model.finest
    if finest is None or not process.has_levels or model.learned != "score":
        return
    level = process.bare_noise_level(last)
    if level > (1 + 1e-6) * THIRD * finest:
        end = "t_min=" if last > process.t_min else "a process with a lower t_min or sigma_min"
        warn(
            f"the last denoising, from {process.describe(last)}, leaves {_kept(finest / level):.0%} "
            f"of the smallest standard deviation of the data, {finest:.4g}; pass {end}, or denoise=False."
        )


def _kept(ratio: float) -> float:
    return ratio / math.sqrt(1 + ratio**2)


def signal(model: ScoreModel, t: float) -> float:
    r"""Returns :math:`\alpha_t`, by which data is scaled on entry."""

    return model.process.signal(torch.tensor(t, dtype=torch.float64)).item()
