r"""Step size control, one sample at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .problem import Problem
from .shapes import align, row_rms


@dataclass(frozen=True)
class Controller:
    r"""Creates the standard controller of the local error, with a step of its own per sample.

    A step is accepted if the root mean square over the entries of the sample of
    :math:`error / (atol + rtol \max(|x_0|, |x_1|))` is at most 1.

    Arguments:
        rtol: The relative tolerance.
        atol: The absolute tolerance, in units of the state.
        max_steps: The largest number of steps of a sample, rejected ones included.

    References:
        | Solving Ordinary Differential Equations I (Hairer et al., 1993), section II.4
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0, but is {value}.")
        if self.rtol + self.atol == 0:
            raise ValueError("rtol and atol must not both be 0; set at least one, such as 1e-5.")

    def ratio(self, error: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        r"""Returns the size of an error relative to what is allowed, with shape (B,)."""

        return row_rms(error / (self.atol + self.rtol * torch.maximum(x0.abs(), x1.abs())))

    def resize(self, h: Tensor, ratio: Tensor, order: float) -> Tensor:
        r"""Returns the sizes of the next steps, with shape (B,), after steps of sizes `h`."""

        factor = (0.9 * ratio ** (-1 / order)).clamp(0.2, 10.0)
        return h * torch.where(ratio.isfinite(), factor, 0.1)

    def first(
        self, problem: Problem, order: float, t0: Tensor, stop: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Returns the sizes of the first steps, with shape (B,), and the drift at the start.

        It costs two evaluations of the drift, both inside the span.

        Arguments:
            problem: The problem.
            order: The order of the method.
            t0: The times at which the samples start, with shape (B,).
            stop: The time at which they end, with shape ().
            x: The state at the start, with shape (B, *).
        """

        span = stop - t0
        scale = self.atol + self.rtol * x.abs()
        f0 = problem.at(t0[None], x)[0](x)
        size, speed = row_rms(x / scale), row_rms(f0 / scale)
        h0 = torch.where((size < 1e-5) | (speed < 1e-5), span.abs() * 1e-6, 0.01 * size / speed)
        h0 = torch.where(h0.isfinite(), h0, span.abs() * 1e-6).minimum(span.abs())
        x1 = x + align((h0 * span.sign()).to(x.device, x.dtype), x) * f0
        f1 = problem.at((t0 + h0 * span.sign())[None], x)[0](x1)
        bend = row_rms((f1 - f0) / scale) / h0
        h1 = (0.01 / torch.maximum(speed, bend).clamp(min=1e-15)) ** (1 / (order + 1))
        h1 = torch.where(h1.isfinite(), h1, h0)
        return torch.minimum(100 * h0, h1).minimum(span.abs()), f0
