r"""Initial value problems, the only input that a solver ever sees.

Times are float64 tensors on the CPU, with shape () when all rows share them and (B,) otherwise; states have
shape (B, *). :meth:`Problem.at` computes whatever depends on time alone for many times at once, before a loop
starts.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .shapes import Factor, align, factors, row_where, scalars

Field = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> a tensor like x
StateField = Callable[[Tensor], Tensor]  # x -> a tensor like x, at a time already chosen
Tabulate = Callable[[Tensor, Tensor], Sequence[StateField]]


def _describe(t: float) -> str:
    return f"t={t:.4g}"


class Sizes(NamedTuple):
    r"""The sizes of states at given times, to which tolerances refer.

    Arguments:
        unit: The factor that brings states to the units of tolerances.
        shift: The factor that multiplies the mean, in these units.
        fine: The smallest standard deviation in any direction, in these units.
        coarse: Their typical size, in these units.
    """

    unit: Tensor
    shift: Tensor
    fine: Tensor
    coarse: Tensor


def _ones(t: Tensor) -> Sizes:
    return Sizes(*(torch.ones_like(t) for _ in Sizes._fields))


def _itself(t: Tensor) -> Tensor:
    return t


LEAST = 0.03  # of the smallest deviation: entries nearer to their mean count as this far from it


@dataclass(frozen=True)
class Problem:
    r"""Abstract initial value problem.

    Arguments:
        drift: The field :math:`f(t, x)`. The time has shape (), or (B, 1, ...) when rows differ.
        tabulate: A function of times, with shape (n,) or (n, B), and of a state that sets shape, dtype and
            device. It returns n fields, one per time, as functions of the state. By default, `drift` is called
            with each time.
        rows: A function from row indices to the problem of these rows alone. By default, the drift is assumed to
            work for any rows.
        describe: A function from a time to its description in error messages.
        cost: The network calls per drift evaluation, for budgets.
        sizes: A function from times to the sizes of states. Where they grow, earlier errors grow with them. By
            default, all are 1.
        pace: A monotone function of time, and its inverse, in which the lengths of steps are bounded. By
            default, this is time itself.
        longest: The default of the maximum adaptive step, in this pace and per order of the error estimate,
            which is one below the method's order.
        share: The fraction of entries of each row that count in root mean squares, with shape (B,) or (1,); the
            others are 0. By default, all count.

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
    share: Tensor | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        drift = getattr(self.drift, "__qualname__", type(self.drift).__name__)
        noise = "" if getattr(self, "diffusion", None) is None else ", with noise"
        cost = "1 network call" if self.cost == 1 else f"{self.cost} network calls"
        return f"{type(self).__name__}(drift {drift}{noise}, {cost} per evaluation)"

    def at(self, times: Tensor, x: Tensor) -> Sequence[StateField]:
        r"""Returns the drift at each time, as functions of the state alone."""

        if self.tabulate is not None:
            return self.tabulate(times, x)
        return [lambda x, t=t: self.drift(align(t, x), x) for t in times]  # type: ignore[misc]

    def ahead(self, t: Tensor, stop: Tensor, step: float) -> Tensor:
        r"""Returns the times that lie one step, in the pace of the problem, ahead of the given ones.

        Arguments:
            t: The times, with shape (B,).
            stop: The times that must not be passed, with shape (B,).
            step: The length of the step, which may be infinite.
        """

        if step == math.inf:
            return stop
        of, time = self.pace or (_itself, _itself)
        way = of(stop) - of(t)
        there = time(of(t) + way.sign() * step)
        return torch.where(way.abs() <= step, stop, there)

    def marks(self, ends: Tensor, step: float) -> Tensor:
        r"""Returns the fewest times, from the first to the last given time, that are at most a step apart."""

        of, time = self.pace or (_itself, _itself)
        first, last = of(ends[[0, -1]])
        pieces = max(1, math.ceil(abs(float(last - first)) / step - 1e-9))
        between = torch.linspace(0, 1, pieces + 1, dtype=torch.float64)[1:-1]
        return torch.cat([ends[:1], time(torch.lerp(first, last, between)), ends[-1:]])

    def tolerance(self, sizes: Sizes, last: Sizes) -> Tensor:
        r"""Returns the error in states that an absolute tolerance of 1 at the end of a run allows, one per time.

        Arguments:
            sizes: The sizes of the states.
            last: The sizes at the end of the run.
        """

        share = torch.minimum(sizes.fine / last.fine, sizes.coarse / last.coarse)
        return share.clamp(max=1) / sizes.unit

    def deviation(self, ends: Sizes, x0: Tensor, x1: Tensor) -> Tensor:
        r"""Returns the part of states that is amplified on the way to the end of a run, with shape (B, *).

        Where the smallest deviation grows, this is the deviation from the mean, which is inferred from how far
        the steps went, as a state shifted by the mean goes no further. Elsewhere, it is the states themselves.

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

    def counted(self, scale: Tensor) -> Tensor:
        r"""Returns a scale for which the root mean square over all entries is that over those that count."""

        if self.share is None:
            return scale
        root = self.share.sqrt().expand(len(scale)).to(scale)
        return (align(root, scale) * scale).clamp(min=torch.finfo(scale.dtype).tiny)

    def subset(self, index: Tensor) -> "Problem":
        r"""Returns the problem of the given rows."""

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

    Its noise is additive, so the Ito and the Stratonovich equations are the same.

    Arguments:
        diffusion: The function :math:`g(t)`, from times to numbers with the same shape.
        spread: A function that returns the numbers of times with shape (n,) or (n, B), for a state that sets
            shape, dtype and device, as n factors of the noise. By default, these are the numbers themselves.

    Examples:
        >>> brownian = solvers.SDE(lambda t, x: 0 * x, torch.ones_like)
        >>> s = solvers.solve(brownian, torch.zeros(4000, 1), torch.tensor([0.0, 4.0]), "em")
        >>> abs(float(s.x.std()) - 2) < 0.1
        True
    """

    diffusion: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor, Tensor], Sequence[Factor]] = field(default=scalars, kw_only=True)

    def noise_factors(self, times: Tensor, x: Tensor) -> Sequence[Factor]:
        r"""Returns the diffusion at each time, as factors of the noise."""

        return self.spread(self.diffusion(times), x)


class Linear(ABC):
    r"""Abstract linear part of a semi-linear equation, which is known exactly.

    Without :math:`N`, the coordinates of the state are independent, so every quantity here has one value per
    coordinate, or one for all: times with shape (\*) give numbers with shape (\*, c), where c is 1 or the number
    of coordinates. Rows with times of their own lie on the second axis of the times.

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

    def middle(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns the time in steps from s to t before which about half of the weight of N lies."""

        return torch.lerp(s, t, 0.5)

    def factors(self, values: Tensor, x: Tensor) -> Sequence[Factor]:
        r"""Returns numbers of this linear part, with shape (n, c) or (n, B, c), as n factors of the state."""

        return factors(values, x)

    def least(self, decay: Tensor) -> Tensor:
        r"""Returns the factors by which steps with the given decay shrink what they shrink most."""

        return decay

    @property
    def key(self) -> Hashable | None:
        r"""What its numbers depend on besides times, by which they are kept, or `None` to compute them anew.

        It is for numbers that are one for all coordinates.
        """

        return None

    @property
    def quiet(self) -> "Linear":
        r"""The linear part of the equation without noise."""

        return self

    def level(self, t: Tensor) -> Tensor:
        r"""Returns the noise level :math:`\sigma(t)` of the state, with the shape of times.

        In the form "data", the law at a time is invariant under
        :math:`dx = (N - x) \, ds + \sqrt 2 \sigma \, dw`.
        """

        raise ValueError("the state of this problem has no noise level.")

    def time_of(self, level: Tensor) -> Tensor:
        r"""Returns the time of a noise level, or the nearest end of the domain."""

        raise ValueError("the state of this problem has no noise level.")

    def beyond(self, s: Tensor, t: Tensor) -> Tensor:
        r"""Returns the less noisy time from which the noise of a step from s to t leads back to t."""

        return t

    @property
    def contrast(self) -> Tensor:
        r"""A number in [0, 1] for each coordinate, with shape (c,), by which learned weights may differ."""

        return torch.zeros(1, dtype=torch.float64)

    def variable(self, name: str, t: Tensor) -> Tensor:
        r"""Returns the variable in which :math:`N` is approximated by a polynomial."""

        if name != "clock":
            raise ValueError(f"this problem has no variable {name!r}, only 'clock'.")
        return t


class LinearFamily(Linear):
    r"""Abstract linear part of a family, any member of which states the same equation.

    Around any centre c, the remainder of a member is :math:`N = a (x - c) + b (y - c)`, where y is the same for
    all members, and in a step with :math:`N = 0` a member multiplies :math:`x - y` by a ratio.

    Examples:
        >>> issubclass(solvers.LinearFamily, solvers.Linear)
        True
    """

    @property
    @abstractmethod
    def parameter(self) -> Tensor:
        r"""The parameter of this member, with shape (1,)."""

    @abstractmethod
    def member(self, parameter: Tensor) -> "LinearFamily":
        r"""Returns the members of rows with the given parameters, for times with shape (n, B, m)."""

    @abstractmethod
    def fit(self, s: Tensor, t: Tensor, ratio: Tensor) -> Tensor:
        r"""Returns the parameters of the members with given ratios in steps from s to t, with shape (B,)."""

    @abstractmethod
    def remainder(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns a and b, with shape (\*, c)."""


@dataclass(frozen=True)
class ConstantRate(Linear):
    r"""The linear part of :math:`dx = a \, (x - N(t, x)) \, dt`, with constant :math:`a`.

    Arguments:
        rate: The rate :math:`a`; if it is negative, the state is drawn to :math:`N`.

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

    Its attribute `drift` is :math:`N`.

    Arguments:
        linear: The linear part: A, B and g.
        guess: An approximation of N by a simple model, which costs no calls, in the form of `tabulate`.

    Examples:
        >>> linear = solvers.SemiLinear(lambda t, x: torch.ones_like(x), solvers.ConstantRate(-1.0))
        >>> s = solvers.solve(linear, torch.zeros(1, 1), torch.tensor([0.0, 1.0]), "ddim")
        >>> round(float(s.x), 4)  # 1 - exp(-1), exact in one step
        0.6321
    """

    linear: Linear
    guess: Tabulate | None = field(default=None, kw_only=True)
