r"""Step size control, one sample at a time."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .doors.signatures import checked
from .problem import Problem, Sizes
from .shapes import align, row_rms


class Caution(NamedTuple):
    r"""How far a method trusts its error estimate.

    Arguments:
        safety: The next step, as a fraction of the largest one expected to be accepted.
        growth: The largest ratio of a step to the one before it.
        accept: The largest accepted error, relative to the tolerance.
        smooth: Whether factors f are limited smoothly, to :math:`1 + \arctan(f - 1)`.
    """

    safety: float = 0.9
    growth: float = 10.0
    accept: float = 1.0
    smooth: bool = False

    def factor(self, ratio: Tensor, order: float | Tensor) -> Tensor:
        r"""Returns the factors by which steps change."""

        factor = self.safety * ratio ** (-1 / order)
        factor = 1 + torch.atan(factor - 1) if self.smooth else factor
        return torch.where(ratio.isfinite(), factor.clamp(0.2, self.growth), 0.1)


@checked
@dataclass(frozen=True)
class Controller:
    r"""Creates the standard controller of the local error, with a separate step size for each sample.

    A step that ends at :math:`x_1` is accepted if the root mean square of
    :math:`error / (atol + rtol \, |x_1|)`, over the entries of the sample, is at most 1. The state before the
    step does not enter: if the state shrinks by orders of magnitude, it would excuse errors as large as what is
    left. Where the equation amplifies errors, :math:`x_1` is measured from its mean, and `atol` applies at the
    end of the run.

    Arguments:
        rtol: The relative tolerance.
        atol: The absolute tolerance, in units of the state.
        max_steps: The maximum number of steps per sample, rejected ones included.
        max_step: The maximum step, in the pace of the problem. The few stages of a longer step may all lie where
            nothing happens, so that its error estimate misses what it steps over.
        first_step: The initial step, in the pace of the problem. By default, the method chooses it.

    References:
        | Solving Ordinary Differential Equations I (Hairer et al., 1993), section II.4

    Examples:
        >>> controller = solvers.Controller(rtol=1e-3, atol=1e-3)
        >>> controller.max_steps
        10000
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000
    max_step: float = math.inf
    first_step: float | None = None

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number >= 0, but is {value}.")
        for name in ("max_step", "first_step"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be a number > 0, but is {value}.")
        if self.rtol + self.atol == 0:
            raise ValueError("rtol and atol must not both be 0; set at least one, such as 1e-5.")

    @torch.no_grad()
    def allowed(
        self, problem: Problem, ends: Sizes, last: Sizes, x0: Tensor, x1: Tensor
    ) -> Tensor:
        r"""Returns the errors allowed at the ends of steps, with shape (B, *).

        Arguments:
            problem: The problem.
            ends: The sizes of states where the steps begin and end, with shape (2, B).
            last: Those at the end of the run, with shape (B,).
            x0: The states where the steps begin, with shape (B, *).
            x1: The states where they end.
        """

        end = Sizes(*(size[1] for size in ends))
        absolute = align(problem.tolerance(end, last).to(x1), x1)
        return problem.counted(self.atol * absolute + self.rtol * problem.deviation(ends, x0, x1))

    def first(
        self, problem: Problem, order: float, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Returns the sizes of the first steps, with shape (B,), and the drift at the start.

        This costs two drift evaluations, both inside the span.

        Arguments:
            problem: The problem.
            order: The order of the method.
            t0: The times at which the samples start, with shape (B,).
            stop: The times at which they end, with shape (B,).
            x: The state at the start, with shape (B, *).
        """

        f0 = problem.at(t0[None], x)[0](x)
        with torch.no_grad():
            return self._first(problem, order, t0, stop, x, f0), f0

    def _first(
        self, problem: Problem, order: float, t0: Tensor, stop: Tensor, x: Tensor, f0: Tensor
    ) -> Tensor:
        span = stop - t0
        scale = problem.counted(self.atol + self.rtol * x.abs())
        size, speed = row_rms(x / scale), row_rms(f0 / scale)
        h0 = torch.where((size < 1e-5) | (speed < 1e-5), span.abs() * 1e-6, 0.01 * size / speed)
        h0 = torch.where(h0.isfinite(), h0, span.abs() * 1e-6).minimum(span.abs())
        x1 = x + align((h0 * span.sign()).to(x.device, x.dtype), x) * f0
        f1 = problem.at((t0 + h0 * span.sign())[None], x)[0](x1)
        bend = row_rms((f1 - f0) / scale) / h0
        h1 = (0.01 / torch.maximum(speed, bend).clamp(min=1e-15)) ** (1 / (order + 1))
        h1 = torch.where(h1.isfinite(), h1, h0)
        return torch.minimum(100 * h0, h1).minimum(span.abs())
