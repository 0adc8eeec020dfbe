r"""Reverse processes as problems: the bridge from :mod:`scoresde` to :mod:`solvers`.

For any :math:`\eta \geq 0`, the marginals of a process are those of the equation

.. math:: dx = \Big( f x - \frac{1 + \eta^2}{2} g^2 \nabla \log p_t(x) \Big) dt + \eta \, g \, dw ,

which runs back in time: the probability flow for :math:`\eta = 0` and the reverse SDE for
:math:`\eta = 1`. With :math:`D = \mathbb{E}[x_0 \mid x_t]`, and in any clock, it is

.. math:: dx = \big( \dot{(\log \alpha)} \, x + (1 + \eta^2) \, \dot \lambda \, (\alpha D - x) \big)
    + \eta \, \sigma \sqrt{2 |\dot \lambda|} \, dw .

In the state :math:`X = x / \alpha` and the clock :math:`\lambda = \log (\alpha / \sigma)` it is one
and the same semi-linear equation for all processes,

.. math:: dX = (1 + \eta^2) \, (D - X) \, d\lambda + \eta \sqrt{2} \, e^{-\lambda} dw .
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from solvers import ODE, SDE, Problem, SemiLinear
from solvers.problem import StateField
from solvers.shapes import align

from .custom import NonlinearProcess
from .models import ScoreModel

Clock = Literal["t", "log_snr"]


def reverse_sde(model: ScoreModel, eta: float = 1.0) -> SDE:
    r"""Returns the reverse SDE in the time of the process, to be integrated from noise to data.

    Arguments:
        model: A score model, with its conditions bound (:meth:`scoresde.ScoreModel.given`).
        eta: The amount of noise :math:`\eta`.
    """

    return Reverse(model, SDE, eta, "t").problem()  # type: ignore[return-value]


def probability_flow(model: ScoreModel) -> ODE:
    r"""Returns the probability flow in the time of the process, to be integrated either way.

    Arguments:
        model: A score model, with its conditions bound (:meth:`scoresde.ScoreModel.given`).
    """

    return Reverse(model, ODE, 0.0, "t").problem()  # type: ignore[return-value]


@dataclass(frozen=True)
class Reverse:
    r"""The reverse process in the form that a solver solves.

    Arguments:
        model: The score model.
        kind: The kind of problem: ODE, SDE or SemiLinear.
        eta: The amount of noise :math:`\eta`.
        clock: The time of the problem, "t" or "log_snr".
    """

    model: ScoreModel
    kind: type[Problem]
    eta: float
    clock: Clock

    def problem(self) -> Problem:
        r"""Returns the problem, of the state :math:`x`, or :math:`x / \alpha` if semi-linear."""

        if isinstance(self.model.process, NonlinearProcess):
            return self._nonlinear(self.model.process)
        if self.kind is SemiLinear:
            return SemiLinear(
                self._drift,
                -(1 + self.eta**2),
                _noise_std(self.eta) if self.eta else None,
                tabulate=self._denoised,
                rows=self._rows,
                describe=self._describe,
            )
        common: dict[str, Any] = {
            "tabulate": self._linear,
            "rows": self._rows,
            "describe": self._describe,
        }
        if self.kind is SDE:
            return SDE(self._drift, self._diffusion, **common)
        return ODE(self._drift, **common)

    def to_clock(self, t: Tensor) -> Tensor:
        r"""Returns the times of the problem from those of the process."""

        return self.model.process.log_snr(t) if self.clock == "log_snr" else t

    def to_time(self, clock: Tensor) -> Tensor:
        r"""Returns the times of the process from those of the problem."""

        return self.model.process.time(clock) if self.clock == "log_snr" else clock

    def scale(self, t: Tensor) -> Tensor:
        r"""Returns what the state of the problem is multiplied with to give :math:`x`."""

        return self.model.process.scales(t)[0] if self.kind is SemiLinear else torch.ones_like(t)

    def _drift(self, clock: Tensor, x: Tensor) -> Tensor:
        clock = clock.reshape(-1)[: len(x)] if clock.ndim > 1 else clock
        tabulate = self._denoised if self.kind is SemiLinear else self._linear
        return tabulate(clock[None], x)[0](x)

    def _linear(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        process, t = self.model.process, self.to_time(clock)
        f, slope = process.rates(t)
        if self.clock == "log_snr":
            f, slope = f / slope, torch.ones_like(slope)
        pull = (1 + self.eta**2) * slope
        return self.model.combine(t, f - pull, pull * process.scales(t)[0], torch.ones_like(t), x)

    def _denoised(self, clock: Tensor, x: Tensor) -> Sequence[StateField]:
        t = self.to_time(clock)
        zeros = torch.zeros_like(t)
        return self.model.combine(t, zeros, zeros + 1, self.scale(t), x)

    def _diffusion(self, clock: Tensor) -> Tensor:
        process, t = self.model.process, self.to_time(clock)
        if self.clock == "log_snr":
            return self.eta * 2**0.5 * process.scales(t)[1]
        return self.eta * process.diffusion(t)

    def _rows(self, index: Tensor) -> Problem:
        return Reverse(self.model.rows(index), self.kind, self.eta, self.clock).problem()

    def _describe(self, clock: float) -> str:
        time = self.to_time(torch.tensor(clock, dtype=torch.float64))
        return self.model.process.describe(float(time))

    def _nonlinear(self, process: NonlinearProcess) -> Problem:
        if self.kind is SemiLinear or self.clock != "t":
            process.log_scales(torch.zeros(()))  # raises: there are none

        def drift(t: Tensor, x: Tensor) -> Tensor:
            pull = (1 + self.eta**2) / 2 * process.diffusion(t.double()) ** 2
            flat = t.reshape(-1) if t.ndim else t
            score = self.model.score(x, flat)
            return process.drift(x, t.to(x)) - align(pull.reshape(flat.shape).to(x), x) * score

        if self.kind is SDE:
            return SDE(drift, self._diffusion, rows=self._rows, describe=self._describe)
        return ODE(drift, rows=self._rows, describe=self._describe)


def _noise_std(eta: float) -> Callable[[Tensor, Tensor], Tensor]:
    def noise_std(start: Tensor, stop: Tensor) -> Tensor:
        return torch.exp(-stop) * torch.sqrt(-torch.expm1(-2 * eta**2 * (stop - start)))

    return noise_std
