r"""The reverse of a process whose drift and diffusion are matrices on blocks of the state.

.. math:: du = \big( F u - \tfrac{1 + \eta^2}{2} G G^T s(u) \big) dt + \eta \, G \, dw , \qquad
    s(u) = \Sigma^{-1} (A D - u) ,

where D is the denoised data, so that :math:`G^T s` is all that the equation needs of the score: of a process with
velocities, the score of the velocities alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from solvers import ODE, SDE, Brownian, Problem, SemiLinear
from solvers.noise.translated import Translated
from solvers.problem import Sizes, StateField
from solvers.shapes import Factor, blocks, product

from ..models.scale import scale_of
from ..models.times import model_times
from ..processes.blocks.process import BlockProcess
from .amounts import ByRow
from .block_linear import BlockFrame
from .reverse import Reverse, at

VARIANCES = {"data": 0.0, "noise": math.inf}
FORMS = (*VARIANCES, "isotropic")


@dataclass(frozen=True)
class BlockReverse(Reverse):
    r"""The reverse of a process on blocks: a chart whose states lie along the axes of the process."""

    def problem(self) -> Problem:
        if self.kind is SemiLinear:
            return SemiLinear(
                partial(at, self._rest), self.block_frame, tabulate=self._rest, **self.facts
            )
        drift = partial(at, self._field)
        if self.kind is SDE:
            return SDE(
                drift, self._diffusion, tabulate=self._field, spread=self._spread, **self.facts
            )
        return ODE(drift, tabulate=self._field, **self.facts)

    @property
    def block_process(self) -> BlockProcess:
        r"""The process."""

        assert isinstance(self.model.process, BlockProcess)
        return self.model.process

    @cached_property
    def block_frame(self) -> BlockFrame:
        r"""The linear part of a semi-linear problem."""

        if self.form not in FORMS or self.profile != "constant" or self.convention != "canonical":
            what = (
                f"the noise profile {self.profile!r}"
                if self.form in FORMS
                else f"form={self.form!r}"
            )
            if self.convention != "canonical":
                what = f"eta_convention={self.convention!r}"
            raise ValueError(
                f"{what} is for processes with numbers alpha and sigma, not for {self.model.process}; use "
                "one such as 'exponential_2', 'dpmpp_2m' or 'deis_2' with the canonical eta."
            )
        if not isinstance(self.eta, float | int):
            raise ValueError(
                f"semi-linear solvers of {self.model.process} take one number as eta; use 'em' or another "
                "general solver for an eta by sample or by noise level."
            )
        variance = VARIANCES.get(self.form)
        variance = scale_of(self.model) ** 2 if variance is None else variance
        return BlockFrame(self.block_process, variance, float(self.eta))

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def motion(self, outside: Brownian) -> Brownian:
        process = self.block_process
        same = self.clock == "log_snr" or not outside.clocked
        return Translated(outside, _itself if same else process.bare_log_snr, process.to_axes)

    def seam(self, times: Tensor, x: Tensor) -> Callable[[int, Tensor], Tensor] | None:
        process = self.block_process
        return lambda i, X: process.to_axes(process.from_axes(X))

    def _enter(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.block_process.to_axes(x)

    def _leave(self, X: Tensor, scale: Tensor) -> Tensor:
        return self.block_process.from_axes(X)

    def _sizes(self, clock: Tensor) -> Sizes:
        return Sizes(*(torch.ones_like(clock) for _ in Sizes._fields))

    def _field(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        if isinstance(self.eta, ByRow) and clock.ndim == 1:
            clock = clock[:, None].expand(-1, len(x))
        process, t = self.block_process, self.to_time(clock)
        G, A = process.diffusion(t), process.signal_matrix(t)
        eta = torch.as_tensor(self._eta_at(clock), dtype=torch.float64)
        pull = ((1 + eta**2) / 2 / self._pace(t))[..., None, None, None] * (G @ G.mT)
        pull = pull @ torch.cholesky_inverse(process.root(t))
        drift = process.drift_matrix(t) / self._pace(t)[..., None, None, None]
        return self._combined(t, drift + pull, -pull @ A, x)

    def _rest(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        t = self.to_time(clock)
        return self._combined(t, *self.block_frame.remainder(t), x)

    def _combined(self, t: Tensor, a: Tensor, b: Tensor, x: Tensor) -> Sequence[StateField]:
        r"""The functions :math:`u \mapsto a u + b D(u)` at each time."""

        process, model = self.block_process, self.model
        none = not bool(a.any())

        def bind(t: Tensor, a: Factor, b: Factor) -> StateField:
            def combined(X: Tensor) -> Tensor:
                D = product(b, process.to_axes(model.bare_denoise(process.from_axes(X), t)))
                return D if none else D + product(a, X)

            return combined

        columns = model_times(process, t, x), blocks(a, x), blocks(b, x)
        return [bind(*column) for column in zip(*columns, strict=True)]

    def _pace(self, t: Tensor) -> Tensor:
        r"""The derivative of the clock by time."""

        return self.block_process.slope(t) if self.clock == "log_snr" else torch.ones_like(t)

    def _diffusion(self, clock: Tensor) -> Tensor:
        t = self.to_time(clock)
        eta = torch.as_tensor(self._eta_at(clock), dtype=torch.float64)
        size = eta / self._pace(t).abs().sqrt()
        return size[..., None, None, None] * self.block_process.diffusion(t)

    def _spread(self, values: Tensor, x: Tensor) -> Sequence[Factor]:
        return blocks(values, x)


def _itself(x: Tensor) -> Tensor:
    return x
