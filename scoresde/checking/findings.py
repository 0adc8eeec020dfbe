r"""What figures say is wrong."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.score_model import ScoreModel
from ..runs.health import Health, unhealthy
from .levels import judged
from .meanings import Meaning
from .search import network_of
from .sentences import mistake
from .statistics import Level

WORST = 1.2  # error against that of a linear denoiser, which right models stay below
CLEARER = 0.2  # by which the logarithm of the error of another meaning is lower if it is meant
LINEAR = 0.05  # mean logarithm of the error, beyond which no meaning fits; 0 but for chance
TWICE = 2.3  # error of samples in place of means, at most: twice that of the mean, but for chance
LOW, MIDDLE, HIGH, WIDE = (
    0.1,
    0.9,
    5.1,
    1.25,
)  # noise levels, and factor of variance, by which samples are known
SAMPLED = 0.9  # slope of data on samples of it, at most where there is much noise
SLOPE = 0.97  # of data on denoised data, which conditional means do not fall below
SLOPED = 1.0  # noise level up to which even weak models keep to it
TWEEDIE = (0.7, 1.3)
SURE = 3.0  # standard errors beyond a limit
BETTER = 0.02  # of the logarithm of the error, from which on another model is better
APART = 1.5  # factor between `data_std` and the size of the data


def of_health(model: ScoreModel, found: Health | None, levels: Sequence[Level]) -> list[str]:
    r"""Returns what is wrong with the answers as numbers: not finite, random, or coupled."""

    lost = [level for level in levels if math.isnan(level.error)]
    if lost:
        kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
        halves = kinds & {torch.float16, torch.bfloat16} or _autocast()
        cure = "look at its output there"
        if halves:
            name = str(next(iter(halves))).removeprefix("torch.")
            cure = f"it computes in {name}, whose largest number may be passed; use bfloat16 or float32"
        where = ", ".join(f"{level.noise_level:.3g}" for level in lost)
        return [f"The network returns NaN or infinite values at noise level {where}: {cure}."]
    return [_capital(words) for words in unhealthy(found)] if found is not None else []


def of_meaning(model: ScoreModel, meanings: Sequence[Meaning]) -> list[str]:
    r"""Returns what a network means, if not what was declared."""

    if not meanings:
        return []
    best, declared = meanings[0], meanings[-1]
    network = network_of(model)
    assert network is not None
    if best.fit > LINEAR:
        return [
            "No meaning fits: whatever it is said to predict, with any known label, process and range of data, "
            f"the network is worse than a linear denoiser ({math.exp(best.fit):.2g} times its error); check that "
            "its weights were loaded, that it was trained long enough, and that the data has the layout of its "
            "training."
        ]
    if declared.fit - best.fit > CLEARER:
        return [mistake(network, best, declared)]
    return []


def of_sample(levels: Sequence[Level]) -> list[str]:
    r"""Returns whether the model returns samples: as wide as the data at each noise level, though not its mean."""

    low = [level for level in levels if level.named < LOW]
    high = [level for level in levels if MIDDLE < level.named < HIGH]
    wide = len(high) > 1 and all(1 / WIDE < level.spread < WIDE for level in high)
    near = bool(low) and all(level.error < WORST and level.slope.value > SAMPLED for level in low)
    if not (wide and near and high[-1].slope.value + SURE * high[-1].slope.stderr < SAMPLED):
        return []
    return [_no_mean(high[-1])]


def of_error(levels: Sequence[Level], limit: float = WORST) -> list[str]:
    r"""Returns where the model is worse than a linear denoiser."""

    worst = max(
        (level for level in levels if judged(level.named)), key=lambda one: one.error, default=None
    )
    if worst is None or not worst.error > limit:
        return []
    return [
        f"At noise level {worst.noise_level:.3g}, the model is {worst.error:.3g} times as wrong as the best "
        "linear denoiser: its training, its process or the data is not what was meant."
    ]


def of_mean(levels: Sequence[Level]) -> list[str]:
    r"""Returns where what a model says is no conditional mean."""

    found = []
    known = [level for level in levels if judged(level.named, SLOPED)]
    low = min(known, key=lambda one: one.slope.value, default=None)
    if low is not None and low.slope.value + SURE * low.slope.stderr < SLOPE:
        found.append(_no_mean(low))
    for level in levels if not found else ():
        value, stderr = level.tweedie
        if value - SURE * stderr > TWEEDIE[1] or value + SURE * stderr < TWEEDIE[0]:
            found.append(
                f"At noise level {level.noise_level:.3g}, the squared error is {value:.3g} times what the "
                "derivative of the network says, by Tweedie's formula of second order: likelihoods and "
                "guidance by gradients will be off; check that nothing in the network cuts derivatives, and "
                "train it longer."
            )
            break
    return found


def of_constant(model: ScoreModel, data: Tensor, std: float) -> list[str]:
    r"""Returns whether the constant of an "edm" network is far from the size of the data."""

    network = network_of(model)
    if network is None or network.predicts != "edm":
        return []
    rms = math.sqrt(float(data.double().square().mean()))
    said = network.data_std
    if any(1 / APART < said / size < APART for size in (rms, std)):
        return []
    return [
        f"data_std={said:.3g} is the constant of the preconditioning, but the data has the root mean square "
        f"{rms:.3g}; pass the constant of the training to ss.NetworkScore(..., 'edm', data_std=)."
    ]


def of_other(levels: Sequence[Level]) -> list[str]:
    r"""Returns whether the model passed as `against` is better."""

    known = [level for level in levels if judged(level.named) and level.other is not None]
    if not known:
        return []
    total = sum(level.gain.value for level in known) / len(known)
    spread = math.sqrt(sum(level.gain.stderr**2 for level in known)) / len(known)
    if total < BETTER or total < SURE * spread:
        return []
    return [
        f"The model passed as against= has {100 * (1 - math.exp(-total)):.2g} % less error: if it holds the "
        "average of the weights (EMA), sample from it, and not from the raw weights."
    ]


def _no_mean(level: Level) -> str:
    return (
        f"At noise level {level.noise_level:.3g}, the slope of the data on the denoised data is "
        f"{level.slope.value:.3g}, not 1, so the model is not a conditional mean: one-step (consistency, "
        "distilled) networks are no scores; declare one by one_step=True, and sample it in a few calls."
    )


def _autocast() -> set[torch.dtype]:
    kinds = ("cpu", "cuda")
    return {torch.get_autocast_dtype(kind) for kind in kinds if torch.is_autocast_enabled(kind)}


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
