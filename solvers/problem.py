r"""Initial value problems: the only things a solver ever sees.

Times are float64 tensors on the CPU, of shape () when all rows share them and (B,) otherwise;
states have shape (B, *). What depends on time alone is worked out for many times at once by
:meth:`Problem.at`, before a loop starts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from .shapes import align

Field = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> a tensor like x
StateField = Callable[[Tensor], Tensor]  # x -> a tensor like x, at a time already chosen
Tabulate = Callable[[Tensor, Tensor], Sequence[StateField]]


def _describe(t: float) -> str:
    return f"t={t:.4g}"


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
    """

    drift: Field
    tabulate: Tabulate | None = field(default=None, kw_only=True)
    rows: Callable[[Tensor], "Problem"] | None = field(default=None, kw_only=True)
    describe: Callable[[float], str] = field(default=_describe, kw_only=True)

    def at(self, times: Tensor, x: Tensor) -> Sequence[StateField]:
        r"""Returns the drift at each of the times, as functions of the state alone."""

        if self.tabulate is not None:
            return self.tabulate(times, x)
        return [lambda x, t=t: self.drift(align(t, x), x) for t in times]  # type: ignore[misc]

    def subset(self, index: Tensor) -> "Problem":
        r"""Returns the problem of some rows."""

        return self if self.rows is None else self.rows(index)

    def map(self, wrap: Callable[[StateField], StateField]) -> Self:
        r"""Returns the problem of which every field is wrapped."""

        return replace(
            self,
            drift=lambda t, x: wrap(lambda x: self.drift(t, x))(x),
            tabulate=lambda times, x: [wrap(f) for f in self.at(times, x)],
            rows=lambda index: self.subset(index).map(wrap),
        )


@dataclass(frozen=True)
class ODE(Problem):
    r"""The ordinary differential equation :math:`dx = f(t, x) \, dt`."""


@dataclass(frozen=True)
class SDE(Problem):
    r"""The equation :math:`dx = f(t, x) \, dt + g(t) \, dw`.

    Its noise is additive, so the Ito and the Stratonovich equation are the same.

    Arguments:
        diffusion: The function :math:`g(t)`, from times to numbers of the same shape.
    """

    diffusion: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SemiLinear(Problem):
    r"""The equation :math:`dx = a \, (x - N(t, x)) \, dt + g(t) \, dw`, with constant :math:`a`.

    The drift of the class is :math:`N`, to which the state is drawn for negative :math:`a`.

    Arguments:
        rate: The rate :math:`a`.
        noise_std: The standard deviation of :math:`\int_s^t e^{a (t - u)} g(u) \, dw_u` as a
            function of s and t, or `None` when there is no noise.
    """

    rate: float
    noise_std: Callable[[Tensor, Tensor], Tensor] | None = None
