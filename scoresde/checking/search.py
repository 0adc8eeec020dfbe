r"""The search for what a network means: each meaning's error, at the same data and noise levels."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.conditions import Bound, rows_of, spread
from ..models.network import NetworkScore
from ..models.predictions import PREDICTIONS
from ..models.score_model import Given, ScoreModel
from ..processes.process import Process
from .levels import SEARCHED, deviation, levels_of, linear_error, noise_of, time_of
from .meanings import PREDICTED, RANGES, Meaning, Range, Reading, asked, readings, sign_of

SCREENED, COMPARED = (
    10,
    40,
)  # rows of data by which ways to call a network are chosen, and meanings compared
FINALISTS = 5  # ways to call a network that are compared
LEAST = -3.0  # logarithm of an error, below which nothing is gained
NEAR = 0.02  # of the best fit, within which the meaning nearest to the declared one is taken
WORSE = 0.0  # fit of the declared meaning, from which on the range of the data is in doubt
TABLE = 100  # entries from which on an embedding may be that of times
STEPS = 999  # the last of their labels, as a rule


def network_of(model: ScoreModel) -> NetworkScore | None:
    r"""Returns the model of the network that a model is, but for its bound conditions; `None` for others."""

    while isinstance(model, Given):
        model = model.model
    return model if isinstance(model, NetworkScore) else None


def bound_of(model: ScoreModel, data: Tensor) -> dict[str, Any]:
    r"""Returns the conditions that are bound to a model, with leading size B."""

    found: dict[str, Bound] = {}
    while isinstance(model, Given):
        found, model = {**model.bound, **found}, model.model
    return spread(found, data)


def search(
    model: ScoreModel, data: Tensor, seed: int, rows: int, *, doubted: bool
) -> list[Meaning]:
    r"""Returns what a network may mean, the best first, and the declared meaning last.

    Arguments:
        model: The model of a network, with its conditions bound.
        data: The data, with shape (B, *).
        seed: The seed of the noise.
        rows: How many rows are asked at once.
        doubted: Whether the range of the data is in doubt.
    """

    network = network_of(model)
    assert network is not None
    std, condition = deviation(data), bound_of(model, data)

    def trial(count: int) -> Trial:
        index = torch.arange(0, len(data), max(1, len(data) // count))[:count]
        some = data[index.to(data.device)]
        return Trial(network, some, std, rows_of(condition, index), seed, rows)

    known, *others = readings(network, (std, math.sqrt(float(data.double().square().mean()))))
    screen, whole, found = trial(SCREENED), trial(COMPARED), []
    found = whole.fits(known, RANGES[0])
    said = network.predicts, sign_of(network.network)
    unfit = Meaning(known, *said, RANGES[0], math.inf)
    declared = next((m for m in found if (m.predicts, m.sign) == said), unfit)
    doubted = doubted or declared.fit > WORSE
    tried = [(reading, RANGES[0]) for reading in others]
    tried += [(one, other) for one in (known, *others) for other in RANGES[1:] if doubted]
    screened = [(screen.fits(*way), way) for way in tried]
    ranked = sorted(
        ((min(m.fit for m in fits), i) for i, (fits, _) in enumerate(screened) if fits)
    )
    for _, i in ranked[:FINALISTS]:
        found += whole.fits(*tried[i])
    return [*_ranked(found, declared), declared]


class Trial:
    r"""Creates the trial of readings of a network on data.

    Arguments:
        model: The model of the network.
        data: The data, with shape (B, *).
        std: The standard deviation of all data.
        condition: Its conditions, with leading size B.
        seed: The seed of the noise.
        rows: How many rows are asked at once.
    """

    def __init__(
        self,
        model: NetworkScore,
        data: Tensor,
        std: float,
        condition: dict[str, Any],
        seed: int,
        rows: int,
    ) -> None:
        self.model, self.data, self.std, self.condition = model, data, std, condition
        self.seed, self.rows, self.table = seed, rows, _has_table(model)

    def fits(self, reading: Reading, chosen: Range) -> list[Meaning]:
        r"""Returns the fits of a reading for all predictions and signs; none where the network fails."""

        x0 = chosen.factor * self.data + chosen.offset
        std = chosen.factor * self.std
        levels = levels_of(self.model.process, SEARCHED, std)
        process = reading.process
        if not _covers(process, levels):
            return []
        times = torch.stack([time_of(process, level) for level in levels])
        if self.table and not reading.known and not _in_table(reading, times):
            return []
        alpha, sigma = (scale.to(x0) for scale in process.scales(times))
        noise = torch.stack([noise_of(x0, self.seed, number) for number in range(len(levels))])
        shape = (-1, *[1] * x0.ndim)
        x = alpha.reshape(shape) * x0 + sigma.reshape(shape) * noise
        try:
            F = self._answers(reading, x, times)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a network says of labels that are not its own
            return []
        linear = [linear_error(std, level) for level in levels]
        return [
            Meaning(reading, predicts, sign, chosen, fit)
            for predicts, sign, fit in _taken(reading, times, x, F, x0, linear)
        ]

    def _answers(self, reading: Reading, x: Tensor, times: Tensor) -> Tensor:
        r"""What the network returns at all times, with shape (n, B, *)."""

        model, (n, size) = asked(self.model, reading), x.shape[:2]
        flat, t = x.flatten(0, 1), times.repeat_interleave(size)
        found = []
        for index in torch.arange(len(flat)).split(self.rows):
            condition = rows_of(self.condition, index % size)
            with torch.no_grad():
                found.append(model.raw(flat[index.to(x.device)], t[index], **condition))
        return torch.cat(found).reshape(n, size, *x.shape[2:])


def _taken(
    reading: Reading,
    times: Tensor,
    x: Tensor,
    F: Tensor,
    x0: Tensor,
    linear: Sequence[float],
) -> Iterator[tuple[str, int, float]]:
    r"""The fits of an answer, taken for each prediction with either sign."""

    x, F, x0 = x.double(), F.double(), x0.double()
    kinds = PREDICTED if reading.data_std is None else ("edm",)
    for predicts in kinds:
        form = PREDICTIONS[predicts](reading.process, times, reading.data_std or 1.0)
        skip, out = (part.to(x).reshape(-1, *[1] * x0.ndim) for part in (form.skip, form.out))
        for sign in (1, -1):
            error = (skip * x + sign * out * F - x0).flatten(1).square().mean(1).tolist()
            logs = [math.log(e / wanted + 1e-12) for e, wanted in zip(error, linear, strict=True)]
            fit = sum(max(log, LEAST) for log in logs) / len(logs)
            if fit == fit:
                yield predicts, sign, fit


def _covers(process: Process, levels: Sequence[float]) -> bool:
    low, high = (process.noise_level(t) for t in (process.t_min, process.t_max))
    return low * 0.999 < levels[0] and levels[-1] < high * 1.001


def _has_table(model: NetworkScore) -> bool:
    r"""Whether labels beyond a table would end the process on an accelerator, where no error can be caught."""

    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    here = {m.weight.device.type for m in tables if m.num_embeddings >= TABLE}
    return bool(here - {"cpu"})


def _in_table(reading: Reading, times: Tensor) -> bool:
    label = reading.labels(times)
    return 0 <= float(label.min()) and float(label.max()) < STEPS + 1


def _ranked(found: Sequence[Meaning], declared: Meaning) -> list[Meaning]:
    r"""Meanings, the best first; of those that fit alike, the nearest to the declared one."""

    ordered = sorted(found, key=lambda meaning: meaning.fit)
    near = [m for m in ordered if m.fit < ordered[0].fit + NEAR]
    best = min(near, key=lambda one: (changes(one, declared), len(str(one.reading.label))))
    return [best, *(m for m in ordered if m is not best)]


def changes(meaning: Meaning, declared: Meaning) -> int:
    r"""Returns in how many respects two meanings differ, of which processes count twice."""

    mine, theirs = meaning.reading, declared.reading
    return (
        2 * (mine.process != theirs.process)  # which a label is less than
        + (mine.label != theirs.label)
        + (mine.data_std != theirs.data_std)
        + sum(a != b for a, b in zip(meaning[1:4], declared[1:4], strict=True))
    )
