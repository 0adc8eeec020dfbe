r"""Samples of posteriors, for many observations at once, within the bounds of the prior."""

import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from solvers import Solver
from solvers.doors.signatures import checked
from solvers.doors.values import Array
from solvers.noise.brownian import EDITS, keys

from ..doors.amounts import positive
from ..doors.data import as_data, as_floats
from ..likelihood.result import Likelihood
from ..models.checks import check_count
from ..models.conditions import Bound, Condition, check_conditions, leaves, verb
from ..models.score_model import ScoreModel
from ..reverse.amounts import Eta
from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from ..runs.options import SEED, Levels, Options, Planned, Start, Stepping, Times
from ..runs.plan import Plan
from ..runs.takes import Takes, check_model
from ..sampling import sample

DRAW = Takes(
    "draws of a posterior", Stepping, "eta", "eta_convention", "seed", "dtype", "device", "batch_size",
    "max_calls", "progress", Start, Planned,
)  # fmt: skip
FEWEST = 16  # proposals of an observation in one round
SPARE = 1.1  # more proposals than are expected to be enough
APART = 2**32  # from the proposals of one observation to those of the next


@dataclass(frozen=True, repr=False)
class Draws:
    r"""Samples of the posteriors of N observations, all of them within the bounds.

    Arguments:
        samples: The samples, with shape (N, count, \*).
        proposals: The number of samples that were drawn for each observation until enough of them lay within
            the bounds, with shape (N,).
        calls: The network calls for each observation, proposals included, with shape (N,).
        low: The lower bounds, with the shape of a sample.
        high: The upper bounds.

    Examples:
        >>> d = ss.inference.draw(model, 1000, low=0.0)
        >>> d.samples.shape, abs(float(d.acceptance[0]) - 0.25) < 0.04
        (torch.Size([1, 1000, 2]), True)
    """

    samples: Tensor
    proposals: Tensor
    calls: Tensor
    low: Tensor
    high: Tensor

    @property
    def acceptance(self) -> Tensor:
        r"""The share of the model's samples within the bounds, with shape (N,).

        For k samples out of m proposals, of which the last was accepted, it is :math:`(k - 1) / (m - 1)`, which is
        unbiased.

        References:
            | On a Method of Estimating Frequencies (Haldane, 1945)
            | https://doi.org/10.1093/biomet/33.3.222
        """

        k, m = self.samples.shape[1], self.proposals.double()
        return (k - 1) / (m - 1) if k > 1 else 1 / m

    @property
    def stderr(self) -> Tensor:
        r"""The standard error of the logarithm of the acceptance, :math:`\sqrt{(1 - p) / k}`, with shape (N,)."""

        return ((1 - self.acceptance) / self.samples.shape[1]).sqrt()

    def __repr__(self) -> str:
        n, count, *shape = self.samples.shape
        rate = self.acceptance
        least = f", {rate.min():.3g} for the least of them" if n > 1 else ""
        return (
            f"Draws({count} samples {tuple(shape)} for {n} observation{'s' if n > 1 else ''}, acceptance "
            f"{rate.mean():.3g}{least})"
        )

    @checked
    def renormalised(self, likelihood: Likelihood, x: Array) -> Likelihood:
        r"""Returns the log-density of the posterior that is cut off at the bounds.

        It is :math:`\log p(x) - \log P` within the bounds, where P is the acceptance, and :math:`- \infty` beyond.
        The standard error is that of the density and of the acceptance together.

        Arguments:
            likelihood: The log-density of the model at x, as of :func:`scoresde.log_likelihood`.
            x: The data of that density, with shape (B, \*), where B is N, or anything for one observation.

        Raises:
            ValueError: If the numbers of rows do not match.
        """

        x, n = as_data("x", x), len(self.samples)
        if n not in (1, len(x)) or len(x) != len(likelihood.nats):
            raise ValueError(
                f"x must have {len(likelihood.nats)} rows, one per density, and one per observation, of which "
                f"there are {n}, but has {len(x)}."
            )
        inside = _inside(x, self.low.to(x), self.high.to(x)).to(likelihood.nats.device)
        rate, error = (value.to(likelihood.nats) for value in (self.acceptance, self.stderr))
        nats = torch.where(inside, likelihood.nats - rate.log(), -math.inf)
        stderr = torch.hypot(likelihood.stderr.nan_to_num(), error.expand(len(x)))
        budget = {**likelihood.budget, "acceptance": error.expand(len(x))}
        return replace(likelihood, nats=nats, stderr=stderr, budget=budget)


@verb(in_data=True)
def draw(  # noqa: D417
    model: ScoreModel,
    count: int,
    *,
    low: Array | float | None = None,
    high: Array | float | None = None,
    max_draws: float = 100.0,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    levels: Levels | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    eta: Eta | None = None,
    eta_convention: Convention = "canonical",
    seed: int | None = SEED,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    max_calls: int | None = None,
    progress: bool = False,
    t_min: float | None = None,
    sigma_min: float | None = None,
    plan: Plan | str | Path | None = None,
    **condition: Condition,
) -> Draws:
    r"""Draws samples of the posterior of each observation, within bounds.

    A learned posterior leaks out of the bounds of the prior. Samples beyond them are rejected, and others drawn.
    The samples of all observations are drawn in one batch, and further batches replace those that were rejected.
    A sample depends on the seed, on the row of its observation and on its number alone, and not on `batch_size`.

    Arguments:
        model: The model, which knows the shape of a sample.
        count: The number of samples for each observation.
        low: The lower bounds, with the shape of a sample, or one number, in the units of the data. By default,
            there are none.
        high: The upper bounds, in the same form.
        max_draws: The most samples drawn for each accepted one.
        condition: The conditions of the model, each with leading size N or 1: an observation in each row. The
            options are those of :func:`scoresde.sample`.

    Raises:
        ValueError: If an argument is invalid, or too few samples lie within the bounds.
        SolverError: If a run fails.

    References:
        | Truncated Proposals for Scalable and Hassle-free Simulation-based Inference (Deistler et al., 2022),
        | section 3, for the leakage
        | https://arxiv.org/abs/2210.04815

    Examples:
        >>> ss.inference.draw(model, 100)
        Draws(100 samples (2,) for 1 observation, acceptance 1)
    """

    options = DRAW.said(locals())
    check_model(model)
    count, max_draws = check_count("count", count, at_least=1), positive("max_draws", max_draws)
    if max_draws < 1:
        raise ValueError(f"max_draws must be at least 1, but is {max_draws:g}.")
    said = {name: options.pop(name) for name in condition}
    bound, n = observed(model, said)
    box = bounds_of(model, low, high)
    options["seed"] = (
        secrets.randbits(31) if options.get("seed", 0) is None else options.get("seed", 0)
    )
    run = _Proposals(model.given(**bound), n, count, box, max_draws, options)
    while len(run.unfinished):
        run.advance()
    return run.result()


def observed(model: ScoreModel, condition: Mapping[str, object]) -> tuple[dict[str, Bound], int]:
    r"""Returns conditions with an observation in each row, and the number of observations."""

    bound = check_conditions(model, condition, None, DRAW.names)
    n = max([1, *(len(one) for value in bound.values() for one in leaves(value))])
    for name, value in bound.items():
        for tensor in leaves(value):
            if len(tensor) not in (1, n):
                raise ValueError(
                    f"{name} must have leading size {n} or 1, one row per observation, but has shape "
                    f"{tuple(tensor.shape)}."
                )
    parts = [part for part in model.modules() if isinstance(part, ScoreModel)]
    held = max([1, *(len(value) for part in parts for value in part.held.values())])
    if held > 1:
        raise ValueError(
            f"a condition of the model is bound to {held} rows; bind none, and pass observations here, one in "
            "each row."
        )
    return bound, n


def bounds_of(
    model: ScoreModel, low: Array | float | None, high: Array | float | None
) -> tuple[Tensor, Tensor]:
    r"""Returns the bounds with the shape of a sample, in float64."""

    if model.shape is None:
        raise ValueError(
            "the model does not know the shape of a sample, so neither do its draws; pass shape= to "
            "ss.NetworkScore, or set model.shape."
        )
    found = []
    for name, value, none in (("low", low, -math.inf), ("high", high, math.inf)):
        bound = torch.tensor(none) if value is None else as_floats(name, value)
        if bound.ndim and bound.shape != model.shape:
            raise ValueError(
                f"{name} must be a number or have the shape of a sample, {tuple(model.shape)}, but has "
                f"{tuple(bound.shape)}."
            )
        found.append(bound.double().cpu().expand(model.shape))
    if not bool((found[0] < found[1]).all()):
        worst = int((found[0] - found[1]).flatten().argmax())
        low, high = (float(bound.flatten()[worst]) for bound in found)
        raise ValueError(
            f"low must be below high, but entry {worst} goes from {low:.4g} to {high:.4g}."
        )
    return found[0], found[1]


def _inside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""Which rows lie within the bounds."""

    return ((x >= low) & (x <= high)).flatten(1).all(1)


class _Proposals:
    r"""The samples that were accepted so far, and the counts of those that were proposed."""

    def __init__(
        self,
        model: ScoreModel,
        n: int,
        count: int,
        box: tuple[Tensor, Tensor],
        max_draws: float,
        options: Options,
    ) -> None:
        self.model, self.n, self.count, self.box = model, n, count, box
        self.most, self.options = math.ceil(max_draws * count), options
        self.proposed = torch.zeros(n, dtype=torch.int64)
        self.accepted = torch.zeros(n, dtype=torch.int64)
        self.needed = torch.zeros(
            n, dtype=torch.int64
        )  # proposals up to the last that was accepted
        self.calls = torch.zeros(n, dtype=torch.int64)
        shape = model.shape or ()
        self.beyond = torch.zeros(n, 2, math.prod(shape), dtype=torch.int64)
        self.samples: Tensor | None = None

    @property
    def unfinished(self) -> Tensor:
        r"""The observations that lack samples."""

        return (self.accepted < self.count).nonzero()[:, 0]

    def advance(self) -> None:
        r"""Proposes samples for all observations that lack some, in one run."""

        rows = self.unfinished
        asked = torch.tensor([self._next(row) for row in rows.tolist()])
        owner = rows.repeat_interleave(asked)
        number = torch.cat(
            [torch.arange(k) + self.proposed[row] for row, k in zip(rows, asked, strict=True)]
        )
        options = {
            **self.options,
            "seeds": keys(self.options["seed"], owner * APART + number, EDITS),
        }
        del options["seed"]
        s = sample(self.model.rows(owner), len(owner), **options)
        if self.samples is None:
            self.samples = s.x.new_zeros(self.n, self.count, *s.x.shape[1:])
        self.calls.index_add_(0, owner, s.calls.cpu())
        self._take(owner, s.x)

    def _next(self, row: int) -> int:
        r"""How many samples to propose next for an observation."""

        proposed, accepted = int(self.proposed[row]), int(self.accepted[row])
        if not proposed:
            return self.count
        if proposed >= self.most:
            raise ValueError(self._complaint(row))
        missing = self.count - accepted
        rate = max(accepted, 0.5) / proposed
        return min(max(FEWEST, math.ceil(SPARE * missing / rate)), self.most - proposed)

    def _take(self, owner: Tensor, x: Tensor) -> None:
        r"""Keeps the samples within the bounds, in the order of their numbers, until there are enough."""

        assert self.samples is not None
        low, high = (bound.to(x) for bound in self.box)
        inside = _inside(x, low, high).cpu()
        sides = torch.stack([(x < low).flatten(1), (x > high).flatten(1)], 1).long().cpu()
        self.beyond.index_add_(0, owner, sides)
        for row, rows in _by_owner(owner):
            good = rows[inside[rows]][: self.count - int(self.accepted[row])]
            first = int(self.accepted[row])
            self.samples[row, first : first + len(good)] = x[good.to(x.device)]
            self.accepted[row] += len(good)
            if self.accepted[row] == self.count:
                self.needed[row] = self.proposed[row] + int(good[-1] - rows[0]) + 1
            self.proposed[row] += len(rows)

    def _complaint(self, row: int) -> str:
        r"""Why too few samples lie within the bounds, and what to do about it."""

        low, high = (bound.flatten() for bound in self.box)
        side, entry = divmod(int(self.beyond[row].flatten().argmax()), len(low))
        share = int(self.beyond[row, side, entry]) / int(self.proposed[row])
        where = f"below low={low[entry]:.4g}" if side == 0 else f"above high={high[entry]:.4g}"
        which = f" of observation {row}" if self.n > 1 else ""
        rate = int(self.accepted[row]) / int(self.proposed[row])
        return (
            f"only {int(self.accepted[row])} of {int(self.proposed[row])} samples{which} lie within the bounds "
            f"(an acceptance of {rate:.2g}), since {share:.0%} of entry {entry} are {where}. Check low= and "
            "high=, train the model on parameters mapped to the real line (by a logit of their place between the "
            "bounds), or raise max_draws=."
        )

    def result(self) -> Draws:
        assert self.samples is not None
        return Draws(self.samples, self.needed, self.calls, *self.box)


def _by_owner(owner: Tensor) -> Iterator[tuple[int, Tensor]]:
    r"""The rows of each observation, which follow one another."""

    values, counts = owner.unique_consecutive(return_counts=True)
    yield from zip(values.tolist(), torch.arange(len(owner)).split(counts.tolist()), strict=True)
