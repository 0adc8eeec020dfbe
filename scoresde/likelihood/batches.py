r"""Argument checks for densities, and their data in batches."""

import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from solvers import Solution
from solvers.noise.brownian import Seed

from ..doors.data import as_state
from ..models.checks import check_data, is_whole
from ..models.derivative import check_derivative
from ..models.masked import entries_of, kept_of, log_units
from ..models.rows_check import check_rows
from ..models.score_model import ScoreModel
from ..models.self_conditioned import refuse_memory
from ..models.transforms import Data
from ..processes.blocks.process import BlockProcess
from ..processes.domain import SLACK
from ..runs.options import Keys, Limits, Numbers, Options, RunOptions, Start, Stepping
from ..runs.settings import Settings, refuse_noise
from ..runs.takes import Takes, split
from .companion import Companion
from .entry import entered

DENSITY = Takes("a likelihood", Stepping, Keys, Numbers, Limits, Start, up=True)
FREE = Takes(
    "here, since no path is solved", Start, Keys, Numbers, "batch_size", words="has no effect"
)
OF_DENSITY = ("divergence", "probes", "nodes", "target_stderr")  # that its verb alone takes
NUMBERS = 2**18  # of the states of a batch


class Batch(NamedTuple):
    r"""A batch of samples, with everything that belongs to them.

    Arguments:
        model: The model, with their conditions.
        x: The data.
        settings: The options.
        seed: The seed of random numbers, or one per sample.
        number: Their indices.
        first: The position of the first one among all samples.
        path: Their path, if it is already there.
    """

    model: ScoreModel
    x: Tensor
    settings: Settings
    seed: Seed
    number: Tensor
    first: int
    path: Solution | None = None

    def halves(self) -> "tuple[Batch, Batch]":
        r"""Returns the two halves of the batch."""

        first, second = torch.arange(len(self.x)).tensor_split(2)
        return self._part(first), self._part(second)

    def _part(self, rows: Tensor) -> "Batch":
        seed = self.seed[rows] if isinstance(self.seed, Tensor) else self.seed
        here = rows.to(self.x.device)
        settings = _rows(self.settings, rows)
        return Batch(
            self.model.rows(rows),
            self.x[here],
            settings,
            seed,
            self.number[here],
            self.first + int(rows[0]),
            None if self.path is None else self.path.rows(rows),
        )


class Asked(NamedTuple):
    r"""The model, data and settings of a density.

    Arguments:
        model: The model, with its conditions bound.
        x: The data, with shape (B, *).
        settings: The options.
        start: The time of the data.
        ends: The logarithms of the first and the last noise level; without scales, the first and the last time.
        companion: The Gaussian companion.
        path: The path from the data to the prior, if it is already there.
        data: The data, if `x` are states of another shape.
        gain: What the log-densities of `x` lack for those of data, with shape (B,), or `None` for nothing.
    """

    model: ScoreModel
    x: Tensor
    settings: Settings
    start: float
    ends: tuple[float, float]
    companion: Companion
    path: Solution | None = None
    data: Tensor | None = None
    gain: Tensor | None = None

    @property
    def dimension(self) -> int:
        r"""The number of dimensions."""

        return self.x[0].numel()

    @property
    def units(self) -> float | Tensor:
        r"""What the log-density of states has too much for that of the user's data, with shape () or (B,)."""

        x = self.x if self.data is None else self.data
        return log_units(self.model, x, math.exp(self.ends[0]))

    @property
    def entries(self) -> Tensor | None:
        r"""The number of entries of each sample that exist, if some do not, with shape (B,)."""

        return entries_of(self.model, self.x)

    def batches(self) -> Iterator[Batch]:
        r"""Returns the samples in batches of the requested size, or as many at once as fit."""

        for rows in torch.arange(len(self.x)).split(rows_at_once(self.settings, self.x)):
            seed, index = self.settings.keys(rows)
            x = self.x[rows.to(self.x.device)]
            settings = _rows(self.settings, rows)
            path = None if self.path is None else self.path.rows(rows)
            known = self.model.rows(rows), x, settings, seed, index.to(x.device)
            yield Batch(*known, int(rows[0]), path)


def ask(
    model: ScoreModel,
    x: Data,
    options: Mapping[str, object],
    takes: Takes = DENSITY,
    **defaults: Unpack[RunOptions],
) -> Asked:
    r"""Returns the checked model, data and settings of a density.

    States are in float64 unless the user passes `dtype`; networks compute in their own dtype.
    """

    x = as_state("x", x)
    if model.transform is not None and model.transform.quantized:
        raise ValueError(
            f"the states of this model, {model.transform!r}, lie on the vectors of a codebook, and points have no "
            "density; densities need continuous latents, such as those of a ss.networks.VAE."
        )
    model, settings = split(model, options, len(x), takes, **defaults)
    refuse_noise(settings)
    refuse_memory(model, "a likelihood")
    process = model.process
    if takes is FREE:
        check_levels(model)
    x = check_data(model, x, "x", settings.dtype, settings.device)
    if settings.dtype is None and x.device.type != "mps":
        x = x.double()
    start = process.start_of("likelihood") if settings.t_min is None else settings.t_min
    start = process.check_inside("t_min", start)
    data, gain = None, None
    if isinstance(process, BlockProcess) and not is_whole(model, x):
        seed, index = settings.keys(torch.arange(len(x)))
        u, gain = entered(model, process, x, start, seed, index.to(x.device))
        data, x = (x if u.shape != x.shape else None), u
    check_rows(model, x)
    x = kept_of(model, x)
    settings.check_batch(
        len(x), len(settings.own_times) - 1 if settings.own_times is not None else 0
    )
    ends = torch.tensor([start, process.t_max], dtype=torch.float64)
    times = None if settings.own_times is None else process.inside("times", settings.own_times)
    if times is not None and not _reach(times, ends):
        raise ValueError(_beside(model, times, ends, options.get("levels") is not None))
    first, last = (-process.log_snr(ends) if process.has_scales else ends).tolist()
    if settings.grad != "none":
        check_derivative(model, x, "reverse", f"grad={settings.grad!r}", rows_at_once(settings, x))
    known = model, x, settings, start, (first, last), Companion.of(model, x)
    return Asked(*known, data=data, gain=gain)


def check_levels(model: ScoreModel) -> None:
    r"""Refuses a model whose process has no noise levels."""

    if not model.process.has_scales:
        raise ValueError(
            f"bounds and views need noise levels with numbers alpha and sigma, but {model.process} has none; "
            "ss.log_likelihood needs none."
        )


def rows_at_once(settings: Settings, x: Tensor) -> int:
    r"""Returns the batch size: the requested one, or as many samples as fit."""

    return settings.batch_size or max(1, NUMBERS // x[0].numel())


def with_seed(options: Mapping[str, object]) -> Options:
    r"""Returns options with a definite seed, drawn for `None`, so that several runs share it."""

    seed = options.get("seed", 0)
    return {**options, "seed": secrets.randbits(31) if seed is None else seed}


def _reach(times: Tensor, ends: Tensor) -> bool:
    found = times[[0, -1]].reshape(2, -1)
    return bool(torch.isclose(found, ends[:, None], rtol=SLACK, atol=0).all())


def _beside(model: ScoreModel, times: Tensor, ends: Tensor, by_level: bool) -> str:
    r"""What is wrong with a grid that does not lead from the data to the prior, and what to do about it."""

    (low, high), (first, last) = ends.tolist(), (float(times[i].flatten()[0]) for i in (0, -1))
    if by_level:
        level = model.process.noise_level
        return (
            f"levels must start at noise level {level(high):.6g}, that of the prior, but start at "
            f"{level(last):.6g}; add it."
        )
    return (
        f"times must go from t_min={low:.9g} to t_max={high:.9g}, but go from {first:.9g} to {last:.9g}; pass "
        "such times, or t_min=."
    )


def ask_freely(model: ScoreModel, x: Data, options: Mapping[str, object]) -> Asked:
    r"""Returns the same for a view without a path to solve."""

    return ask(model, x, options, FREE)


def _rows(settings: Settings, rows: Tensor) -> Settings:
    r"""The options of some samples, whose path is kept."""

    seeds = None if settings.seeds is None else [int(settings.seeds[i]) for i in rows.tolist()]
    times = settings.own_times
    if times is not None and times.ndim > 1:
        times = times[:, rows]
    first = settings.first_index + (0 if seeds else int(rows[0]))
    return replace(
        settings, path=True, batch_size=None, first_index=first, seeds=seeds, times=times
    )
