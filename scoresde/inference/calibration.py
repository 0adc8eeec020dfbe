r"""Tests of posteriors: ranks of the parameters (SBC) and coverage of random regions (TARP)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array
from solvers.noise.brownian import EDITS, keyed_uniform

from ..doors.data import as_data, as_floats, as_seed
from ..models.checks import check_number
from .bands import Uniformity
from .draws import Draws

C = TypeVar("C", bound="Calibration")
FEWEST = 10  # pairs or draws of a test
RANKS = ("the samples are too low", "the samples are too high")
SPREADS = (
    "over-confident, since the samples spread too little",
    "under-confident, since the samples spread too much",
)
REGIONS = (
    "biased, or of another spread, since regions hold the parameters less often than they say",
    "biased, or of another spread, since regions hold the parameters more often than they say",
)
WIDTHS = (
    "over-confident or biased, since the parameters lie nearest to a random point, or farthest, too often",
    "under-confident, since the parameters lie nearest to a random point, or farthest, too rarely",
)


@dataclass(frozen=True, repr=False)
class Calibration:
    r"""The result of a test of posteriors: ranks, which are uniform if the posteriors are right.

    Arguments:
        ranks: The ranks of the parameters among the samples, from 0 to `draws`, with shape (N, k).
        draws: The number of samples per observation.
        level: The probability that the test rejects any of the k columns of a right posterior.
        names: The names of the columns.
        p_values: The p-value of each column, with shape (k,).
        findings: What is wrong, in sentences.

    Examples:
        >>> mean = torch.arange(200.0)[:, None] % 7  # of the posterior of each observation
        >>> z = torch.randn(200, 51, generator=torch.Generator().manual_seed(0))
        >>> c = ss.inference.sbc((mean + z[:, 1:])[..., None], mean + 1.5 * z[:, :1])
        >>> c.calibrated, c.findings[0][:23]
        (tensor([False]), 'entry 0: over-confident')
    """

    ranks: Tensor
    draws: int
    level: float
    names: tuple[str, ...]
    p_values: Tensor
    findings: tuple[str, ...]

    @property
    def calibrated(self) -> Tensor:
        r"""Whether each column passes, with shape (k,): its p-value is at least :math:`level / k` (Bonferroni)."""

        return self.p_values >= self.level / len(self.names)

    @property
    def ok(self) -> bool:
        r"""Whether all columns pass."""

        return not self.findings

    @property
    def band(self) -> Tensor:
        r"""The band that holds the whole distribution function of the ranks of each column that passes.

        Its rows are probabilities :math:`k / (L + 1)`, and the least and the largest share of ranks below k, with
        shape (3, K), in float64.
        """

        test = Uniformity(len(self.ranks), self.draws, self.level / len(self.names))
        return torch.stack([test.shares, *test.band])

    def __str__(self) -> str:
        return "\n".join(self.findings) if self.findings else "Nothing is wrong."

    def __repr__(self) -> str:
        found = "nothing is wrong" if self.ok else "; ".join(self.findings)
        return f"{type(self).__name__}({len(self.ranks)} pairs, {self.draws} draws each: {found})"

    @checked
    def plot(self, file: str | Path) -> Path:
        r"""Draws the ranks of each column, and their distribution function beside the band.

        Arguments:
            file: The file to write.
        """

        from .. import plots  # which asks for matplotlib

        groups = dict(zip(self.names, self.ranks.T, strict=True))
        plots.ranks(Path(file), groups, self.draws, self.band)
        return Path(file)


class Coverage(Calibration):
    r"""The result of a test of coverage, with one column of ranks.

    Examples:
        >>> z = torch.randn(200, 51, 2, generator=torch.Generator().manual_seed(0))
        >>> c = ss.inference.tarp(z[:, 1:], z[:, 0])
        >>> c, isinstance(c, ss.inference.Coverage)
        (Coverage(200 pairs, 50 draws each: nothing is wrong), True)
    """

    @property
    def expected(self) -> Tensor:
        r"""The share of parameters within regions of each credibility k / (L + 1), with shape (L,), in float64."""

        return (self.ranks < torch.arange(1, self.draws + 1)).double().mean(0)

    @checked
    def plot(self, file: str | Path) -> Path:
        r"""Draws the coverage by credibility, beside the band.

        Arguments:
            file: The file to write.
        """

        from .. import plots  # which asks for matplotlib

        plots.coverage(Path(file), {"posterior": self.ranks[:, 0]}, self.draws, self.band)
        return Path(file)


@checked
def sbc(
    samples: Array | Draws, parameters: Array, *, level: float = 0.05, seed: int = 0
) -> Calibration:
    r"""Tests posteriors by the ranks of the parameters among samples: simulation-based calibration.

    For parameters :math:`\theta_i` from the prior, observations simulated with them, and L samples of each
    observation's posterior, the rank of each entry of :math:`\theta_i` among the samples is uniform on 0 to L if
    the posteriors are right. Ranks at both ends mean that the samples spread too little, and ranks in the middle
    that they spread too much.

    Arguments:
        samples: The samples, with shape (N, L, \*), by any method, or those of :func:`draw`.
        parameters: The parameters of the N simulations, with shape (N, \*).
        level: The probability that a right posterior fails in any entry.
        seed: The seed that breaks ties.

    Raises:
        ValueError: If shapes do not match, or there are too few pairs or samples.

    References:
        | Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al., 2018)
        | https://arxiv.org/abs/1804.06788
        | Graphical Test for Discrete Uniformity and its Applications in Goodness-of-Fit Evaluation and Multiple
        | Sample Comparison (Sailynoja et al., 2022), for the p-values and the band
        | https://arxiv.org/abs/2103.10522

    Examples:
        >>> theta, seed = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)), 1
        >>> free = torch.randn(100, 50, 2, generator=torch.Generator().manual_seed(1))  # of useless observations
        >>> ss.inference.sbc(free, theta)
        Calibration(100 pairs, 50 draws each: nothing is wrong)
    """

    x, theta = _checked(samples, parameters)
    level, seed = _checked_level(level), as_seed("seed", seed)
    names = tuple(f"entry {k}" for k in range(theta.shape[1]))
    ranks = _ranks(x, theta[:, None], seed)
    return _judged(Calibration, ranks, x.shape[1], level, names, RANKS, SPREADS)


@checked
def tarp(
    samples: Array | Draws,
    parameters: Array,
    *,
    references: Array | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> Coverage:
    r"""Tests posteriors jointly in all entries by coverage: tests of accuracy with random points (TARP).

    A ball around a random point that holds the share a of a posterior's samples is a region of credibility a. If
    the posteriors are right, it holds the parameters with the probability a. Entries are scaled by their ranges.

    Arguments:
        samples: The samples, with shape (N, L, \*), by any method, or those of :func:`draw`.
        parameters: The parameters of the N simulations, with shape (N, \*).
        references: The points, with shape (N, \*). They must not depend on the parameters, but may depend on the
            observations, which makes the test sharper. By default, they are uniform over the range of all
            parameters.
        level: The probability that a right posterior fails.
        seed: The seed of the points.

    Raises:
        ValueError: If shapes do not match, or there are too few pairs or samples.

    References:
        | Sampling-Based Accuracy Testing of Posterior Estimators for General Inference (Lemos et al., 2023),
        | algorithm 2
        | https://arxiv.org/abs/2302.03026

    Examples:
        >>> z = torch.randn(200, 51, 2, generator=torch.Generator().manual_seed(0))
        >>> ss.inference.tarp(0.5 * z[:, 1:], z[:, 0]).ok  # half the spread
        False
    """

    x, theta = _checked(samples, parameters)
    level, seed = _checked_level(level), as_seed("seed", seed)
    low, span = (
        theta.amin(0),
        (theta.amax(0) - theta.amin(0)).clamp(min=torch.finfo(theta.dtype).tiny),
    )
    if references is None:
        index = torch.arange(len(theta), device=theta.device)
        points = low + span * keyed_uniform(seed, index, EDITS, 0, theta.shape[1]).to(theta)
    else:
        points = as_data("references", references).double().flatten(1)
        if points.shape != theta.shape:
            raise ValueError(
                f"references must have shape {tuple(theta.shape)} like the parameters, but have "
                f"{tuple(points.shape)}."
            )
    near = ((x - points[:, None]) / span).square().sum(2, keepdim=True)
    own = ((theta - points) / span).square().sum(1)[:, None, None]
    ranks = _ranks(near, own, seed)
    return _judged(Coverage, ranks, x.shape[1], level, ("coverage",), REGIONS, WIDTHS)


def _checked(samples: Array | Draws, parameters: Array) -> tuple[Tensor, Tensor]:
    r"""Samples with shape (N, L, d), and parameters with shape (N, d), in float64."""

    given = (
        samples.samples if isinstance(samples, Draws) else as_floats("samples", samples, least=2)
    )
    theta = as_data("parameters", parameters)
    if given.ndim < 3 or given.shape[:1] + given.shape[2:] != theta.shape:
        shape = ", ".join(map(str, theta.shape[1:]))
        raise ValueError(
            f"samples must have shape ({len(theta)}, L, {shape}), L for each of the parameters, but have "
            f"{tuple(given.shape)}."
        )
    for name, number in (("parameters", len(theta)), ("samples", given.shape[1])):
        if number < FEWEST:
            each = "" if name == "parameters" else " for each observation"
            raise ValueError(f"{name} must be at least {FEWEST}{each}, but are {number}.")
    return given.double().flatten(2), theta.to(given.device).double().flatten(1)


def _checked_level(level: float) -> float:
    level = check_number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), but is {level:g}.")
    return level


def _ranks(values: Tensor, own: Tensor, seed: int) -> Tensor:
    r"""The ranks of values, with shape (N, 1, k), among others, with (N, L, k); ties are broken at random."""

    equal = (values == own).sum(1)
    index = torch.arange(len(values), device=values.device)
    u = keyed_uniform(seed, index, EDITS, 1, equal.shape[1]).to(values)
    return ((values < own).sum(1) + (u * (equal + 1)).floor().long()).cpu()


def _judged(
    kind: type[C],
    ranks: Tensor,
    draws: int,
    level: float,
    names: tuple[str, ...],
    *words: tuple[str, str],
) -> C:
    share = level / len(names)
    p_values = Uniformity(len(ranks), draws, share).p_values(ranks)
    findings = tuple(
        f"{name}: {_word(column, draws, *words)} (p = {p:.2g})"
        for name, column, p in zip(names, ranks.T, p_values.tolist(), strict=True)
        if p < share
    )
    return kind(ranks, draws, level, names, p_values, findings)


def _word(ranks: Tensor, draws: int, shifts: tuple[str, str], spreads: tuple[str, str]) -> str:
    r"""The words for how ranks lie above the middle or below it, or spread more or less than uniform ones."""

    share, n = ranks.double() / draws, len(ranks)
    shift = (float(share.mean()) - 1 / 2) * math.sqrt(12 * n)
    spread = (float(share.var(correction=0)) - 1 / 12) * math.sqrt(180 * n)
    words, size = (shifts, shift) if abs(shift) > abs(spread) else (spreads, spread)
    return words[0] if size > 0 else words[1]
