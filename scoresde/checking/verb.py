r"""The public function: whether a model is the score of the noise of some data."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..models.checks import check_count, check_data
from ..models.conditions import Condition, verb
from ..models.rows_check import check_rows
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.health import Health, health, unhealthy
from ..runs.takes import Takes, split
from . import findings as found_in
from .levels import UNIT, deviation, noised
from .meanings import Meaning
from .result import ScoreCheck
from .search import network_of, search
from .statistics import Level, figures

CHECK = Takes("a check of a score", "seed", "dtype", "device", "batch_size")
LEAST = 8  # samples, of which a variance can be taken
NUMBERS = 2**20  # of the states that are asked at once


@verb(data=("data",))
def check_score(
    model: ScoreModel,
    data: Data,
    *,
    against: ScoreModel | None = None,
    one_step: bool = False,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    **condition: Condition,
) -> ScoreCheck:
    r"""Checks on data whether a model is what it is said to be, and names the mistake if not.

    The denoised data of a right score has, at each noise level, a smaller error than the best linear denoiser,
    and is a conditional mean. A network whose error is not small is called again in other ways (time labels,
    processes, ranges of data), and its answer taken for other predictions, with either sign: the meaning that
    fits is named, with the line to write instead. Answers that differ between calls, or between a row alone
    and with others, or that are not finite, are named too.

    Arguments:
        model: The score model.
        data: Data that it was not trained on, with shape (B, *), B >= 8. Some hundred samples tell it well.
        against: Another model, such as that of averaged weights (EMA), whose error is held against the
            model's on the same noise.
        one_step: Whether the network is known to return samples, as those of consistency models, which are no
            conditional means. A model may say so itself, by an attribute of this name.
        seed: The seed of the noise.
        dtype: The dtype of the states, float32 or float64. By default, that of the data.
        device: The device. By default, that of the data.
        batch_size: How many samples the network is asked of at once.
        condition: The conditions of the model, each with leading size B or 1.

    Raises:
        ValueError, TypeError: If an argument does not fit.

    Examples:
        >>> network = lambda x, t: -x / (0.25 + t[:, None] ** 2).sqrt()  # of the wrong sign
        >>> flipped = ss.NetworkScore(network, ss.EDM(), "noise", shape=(2,))
        >>> check = ss.check_score(flipped, model.data(64))
        >>> check.ok
        False
    """

    options = CHECK.said(locals())
    x = check_data(model, data, "data", dtype, device)
    if len(x) < LEAST:
        raise ValueError(f"data must have at least {LEAST} samples, but has {len(x)}.")
    seed = check_count("seed", seed, None, None)
    bound = _bound(model, options, x)
    other = None if against is None else _bound(against, options, x)
    std = deviation(x)
    if not std > 0:
        raise ValueError("data must vary, but all samples are the same.")
    rows = batch_size or max(1, NUMBERS // x[0].numel())
    levels = figures(bound, x, std, seed, rows, other)
    single = one_step or bound.learned == "consistency" or _is_one_step(bound)
    seen, meanings = _looked(bound, x, std, seed, rows, levels, single=single)
    words = found_in.of_health(bound, seen, levels) or _judged(
        bound, levels, meanings, single=single
    )
    if seen is not None and not unhealthy(seen) and not model.guided:
        words += found_in.of_constant(bound, x, std) + found_in.of_other(levels)
    return ScoreCheck(repr(model), tuple(levels), tuple(words), seen, tuple(meanings))


def _bound(model: ScoreModel, options: Mapping[str, object], data: Tensor) -> ScoreModel:
    r"""The model with its conditions bound, refused unless it can be asked at noise levels."""

    mine, _ = split(model, options, len(data), CHECK)
    if not mine.process.has_scales:
        raise ValueError(
            f"a check needs noise levels with numbers alpha and sigma, but {mine.process} has none."
        )
    check_rows(mine, data)
    return mine


def _is_one_step(model: ScoreModel) -> bool:
    r"""Whether a model, or its network, says that it returns samples."""

    owner = network_of(model) or model
    return any(getattr(one, "one_step", False) for one in (owner, getattr(owner, "network", None)))


def _looked(
    model: ScoreModel,
    data: Tensor,
    std: float,
    seed: int,
    rows: int,
    levels: list[Level],
    *,
    single: bool,
) -> tuple[Health | None, list[Meaning]]:
    r"""How answers differ, and what the network may mean, where its answers are finite."""

    if any(math.isnan(level.error) for level in levels):
        return None, []
    middle = next(iter(noised(model.process, data[: min(len(data), rows)], (UNIT,), std, seed)))
    seen = health(model, middle.x, middle.t)
    samples = single and not found_in.of_error(levels, found_in.TWICE)
    if network_of(model) is None or unhealthy(seen) or samples or found_in.of_sample(levels):
        return seen, []
    return seen, search(model, data, seed, rows, doubted=bool(found_in.of_error(levels)))


def _judged(
    model: ScoreModel, levels: list[Level], meanings: list[Meaning], *, single: bool
) -> list[str]:
    r"""What is wrong with a model whose answers are sound as numbers."""

    if model.guided:  # of which no data is known
        return []
    if single:
        return found_in.of_meaning(model, meanings) or found_in.of_error(levels, found_in.TWICE)
    words = found_in.of_sample(levels) or found_in.of_meaning(model, meanings)
    return words or found_in.of_error(levels) or found_in.of_mean(levels)
