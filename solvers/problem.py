r"""Initial value problems: the only things a solver ever sees.

Times are float64 tensors on the CPU, of shape () when all rows share them and (B,) otherwise;
states have shape (B, *). What depends on time alone is worked out for many times at once by
:meth:`Problem.at`, before a loop starts.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .shapes import align, row_where

Field = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> a tensor like x
StateField = Callable[[Tensor], Tensor]  # x -> a tensor like x, at a time already chosen
Tabulate = Callable[[Tensor, Tensor], Sequence[StateField]]


def _describe(t: float) -> str:
    return f"t={t:.4g}"


class Sizes(NamedTuple):
    r"""The sizes of states at some times, by which tolerances are held.

    Arguments:
        unit: The factor by which states are in the units of tolerances.
        shift: What their mean is a multiple of, in these units.
        fine: The least deviation from the mean that they may have in any direction, in these units.
        coarse: The usual size that they have, in these units.
    """

    unit: Tensor
    shift: Tensor
    fine: Tensor
    coarse: Tensor


def _ones(t: Tensor) -> Sizes:
    return Sizes(*(torch.ones_like(t) for _ in Sizes._fields))


def _itself(t: Tensor) -> Tensor:
    return t


LEAST = 0.03  # of the least deviation: entries nearer to their mean count as this far from it


@dataclass(frozen=True)
class Problem:
    r"""Abstract problem.

    Arguments:
        drift: The field :math:`f(t, x)`. The time has shape (), or (B, 1, ...) when rows differ.
        tabulate: A function of times, with shape (n,) or (n, B), and of a state that gives shape,
            dtype and device. It returns the n fields of the state alone. By default, `drift` is
            called with each time.
        rows: A function from the indices of some rows to the problem of these rows alone. By
            default, the drift is taken to work for any rows.
        describe: A function from a time to the words by which errors call it.
        cost: The network calls of one evaluation of the drift, for budgets.
        sizes: A function of times: the sizes of states. Where they grow, an error made before grows with
            them. By default all are 1.
        pace: A monotone function of times, and its inverse, by which the lengths of steps are bounded. By
            default, time itself.
        longest: The largest step under tolerances, in this pace and for each order of the estimate of the
            error, which is one below the method's, unless a run says another.

    Examples:
        >>> solvers.ODE(lambda t, x: -x).drift(torch.tensor(0.0), torch.ones(1, 2))
        tensor([[-1., -1.]])
    """

    drift: Field
    tabulate: Tabulate | None = field(default=None, kw_only=True)
    rows: Callable[[Tensor], "Problem"] | None = field(default=None, kw_only=True)
    describe: Callable[[float], str] = field(default=_describe, kw_only=True)
    cost: int = field(default=1, kw_only=True)
    sizes: Callable[[Tensor], Sizes] = field(default=_ones, kw_only=True)
    pace: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = field(
        default=None, kw_only=True
    )

    longest: float = field(default=math.inf, kw_only=True)

    def __repr__(self) -> str:
        drift = getattr(self.drift, "__qualname__", type(self.drift).__name__)
        noise = "" if getattr(self, "diffusion", None) is None else ", with noise"
        cost = "1 network call" if self.cost == 1 else f"{self.cost} network calls"
        return f"{type(self).__name__}(drift {drift}{noise}, {cost} per evaluation)"

    def at(self, times: Tensor, x: Tensor) -> Sequence[StateField]:
        r"""Returns the drift at each of the times, as functions of the state alone."""

        if self.tabulate is not None:
            return self.tabulate(times, x)
        return [lambda x, t=t: self.drift(align(t, x), x) for t in times]  # type: ignore[misc]

    def ahead(self, t: Tensor, stop: Tensor, step: float) -> Tensor:
        r"""Returns the times a step of some length, in the pace of the problem, ahead of others.

        Arguments:
            t: The times, with shape (B,).
            stop: The times that are not to be passed, with shape (B,).
            step: The length, which may be infinite.
        """

        if step == math.inf:
            return stop
        of, time = self.pace or (_itself, _itself)
        way = of(stop) - of(t)
        there = time(of(t) + way.sign() * step)
        return torch.where(way.abs() <= step, stop, there)

    def marks(self, ends: Tensor, step: float) -> Tensor:
        r"""Returns the fewest times from the first to the last of some that are a step apart or less."""

        of, time = self.pace or (_itself, _itself)
        first, last = of(ends[[0, -1]])
        pieces = max(1, math.ceil(abs(float(last - first)) / step - 1e-9))
        between = torch.linspace(0, 1, pieces + 1, dtype=torch.float64)[1:-1]
        return torch.cat([ends[:1], time(torch.lerp(first, last, between)), ends[-1:]])

    def tolerance(self, sizes: Sizes, last: Sizes) -> Tensor:
        r"""Returns what an absolute tolerance of 1 at the end of a run allows in states, with the shape of times.

        Arguments:
            sizes: The sizes of the states.
            last: Those at the end.
        """

        share = torch.minimum(sizes.fine / last.fine, sizes.coarse / last.coarse)
        return share.clamp(max=1) / sizes.unit

    def deviation(self, ends: Sizes, x0: Tensor, x1: Tensor) -> Tensor:
        r"""Returns what of states is multiplied on the way to the end of a run, with shape (B, *).

        Where the least deviation grows, that is the deviation from the mean. It is told by how far the steps
        went: a state a mean apart goes no further. Elsewhere it is the states.

        Arguments:
            ends: The sizes where the steps begin and end, with shape (2, B).
            x0: The states where they begin, with shape (B, *).
            x1: The states where they end.
        """

        ratio = (ends.fine[0] / ends.shift[0]) / (ends.fine[1] / ends.shift[1])
        grows = ratio < 1 - 1e-12
        if not bool(grows.any()):
            return x1.abs()
        shift = (ends.unit[0] / ends.shift[0]) / (ends.unit[1] / ends.shift[1])
        way = (x1 - align(shift.to(x1), x1) * x0).abs() / align((1 - ratio).to(x1), x1)
        least = align((LEAST * ends.fine[1] / ends.unit[1]).to(x1), x1)
        return row_where(grows, torch.maximum(torch.minimum(x1.abs(), way), least), x1.abs())

    def subset(self, index: Tensor) -> "Problem":
        r"""Returns the problem of some rows."""

        return self if self.rows is None else self.rows(index)

    def map(self, wrap: Callable[[StateField], StateField]) -> Self:
        r"""Returns the problem with every field wrapped."""

        return replace(
            self,
            drift=lambda t, x: wrap(self.at(t.reshape(1, *t.shape[:1]), x)[0])(x),
            tabulate=lambda times, x: [wrap(f) for f in self.at(times, x)],
            rows=lambda index: self.subset(index).map(wrap),
        )


@dataclass(frozen=True, repr=False)
class ODE(Problem):
    r"""The ordinary differential equation :math:`dx = f(t, x) \, dt`.

    Examples:
        >>> decay = solvers.ODE(lambda t, x: -x)
        >>> s = solvers.solve(decay, torch.ones(1, 1), torch.tensor([0.0, 1.0]), "dopri5", rtol=1e-6)
        >>> round(float(s.x), 4)  # exp(-1)
        0.3679
    """


@dataclass(frozen=True, repr=False)
class SDE(Problem):
    r"""The equation :math:`dx = f(t, x) \, dt + g(t) \, dw`.

    Its noise is additive, so the Ito and the Stratonovich equation are the same.

    Arguments:
        diffusion: The function :math:`g(t)`, from times to numbers of the same shape.

    Examples:
        >>> brownian = solvers.SDE(lambda t, x: 0 * x, torch.ones_like)
        >>> s = solvers.solve(brownian, torch.zeros(4000, 1), torch.tensor([0.0, 4.0]), "em")
        >>> abs(float(s.x.std()) - 2) < 0.1
        True
    """

    diffusion: Callable[[Tensor], Tensor]


class Linear(ABC):
    r"""Abstract linear part of a semi-linear equation, known exactly.

    The coordinates of the state are independent but for :math:`N`, so every number here has one
    value per coordinate, or one for all: times of shape (\*) give numbers of shape (\*, c), with
    c = 1 or the number of coordinates.

    Examples:
        >>> isinstance(solvers.ConstantRate(-1.0), solvers.Linear)
        True
    """

    @abstractmethod
    def decay(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns :math:`\Phi(s, t)`, by which a step from s to t multiplies the state."""

    @abstractmethod
    def weight(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns :math:`\Phi(u, t) B(u)`, the weight of :math:`N` at u in a step from s to t."""

    def noise_std(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns the standard deviation of the noise of a step."""

        return torch.zeros_like(t - s)[..., None]

    @property
    def quiet(self) -> "Linear":
        r"""The linear part of the equation without noise."""

        return self

    def level(self, t: Tensor) -> Tensor:
        r"""Returns the noise level :math:`\sigma(t)` of the state, with the shape of times.

        The law at a time is invariant under :math:`dx = (N - x) \, ds + \sqrt 2 \sigma \, dw` in
        the form "data".
        """

        raise ValueError("the state of this problem has no noise level.")

    def time_of(self, level: Tensor) -> Tensor:
        r"""Returns the time of a noise level, or the end of the domain that is nearest."""

        raise ValueError("the state of this problem has no noise level.")

    def beyond(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns the quieter time from which the noise of a step from s to t leads back to t."""

        return t

    def variable(self, name: str, t: Tensor) -> Tensor:
        r"""Returns the variable in which :math:`N` is taken to be a polynomial."""

        if name != "clock":
            raise ValueError(f"this problem has no variable {name!r}, only 'clock'.")
        return t


@dataclass(frozen=True)
class ConstantRate(Linear):
    r"""The linear part of :math:`dx = a \, (x - N(t, x)) \, dt`, with constant :math:`a`.

    Arguments:
        rate: The rate :math:`a`; for negative ones the state is drawn to :math:`N`.

    Examples:
        >>> rate = solvers.ConstantRate(-1.0)
        >>> round(float(rate.decay(torch.tensor(0.0), torch.tensor(1.0))), 4)  # exp(-1)
        0.3679
    """

    rate: float

    def decay(self, s: Tensor, t: Tensor) -> Tensor:
        return torch.exp(self.rate * (t - s))[..., None]

    def weight(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return -self.rate * self.decay(u, t)


@dataclass(frozen=True, repr=False)
class SemiLinear(Problem):
    r"""The equation :math:`dx = (A(t) \, x + B(t) \, N(t, x)) \, dt + g(t) \, dw`.

    The drift of the class is :math:`N`.

    Arguments:
        linear: The linear part: A, B and g.
        guess: N by a simple model of the problem, in the form of `tabulate`, at no cost.

    Examples:
        >>> linear = solvers.SemiLinear(lambda t, x: torch.ones_like(x), solvers.ConstantRate(-1.0))
        >>> s = solvers.solve(linear, torch.zeros(1, 1), torch.tensor([0.0, 1.0]), "ddim")
        >>> round(float(s.x), 4)  # 1 - exp(-1), exact in one step
        0.6321
    """

    linear: Linear
    guess: Tabulate | None = field(default=None, kw_only=True)
