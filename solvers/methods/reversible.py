r"""Methods whose steps can all be undone, because they carry a second state beside the first.

A run begins with one state and ends with a pair. From that pair, a run backwards over the same times ends where
the first began: up to round-off, or to the last bit on a lattice of numbers.

References:
    | Reversible Heun: Efficient and Accurate Gradients for Neural SDEs (Kidger et al., 2021),
    | algorithm 1
    | https://arxiv.org/abs/2105.13493
    | Efficient, Accurate and Stable Gradients for Neural ODEs (McCallum and Foster, 2024),
    | definition 2
    | https://arxiv.org/abs/2410.11648
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..abilities import Abilities
from ..noise.brownian import Brownian
from ..problem import ODE, StateField
from ..shapes import Scalar, row_where, scalars
from ..solver import Solver, Step
from .runge_kutta import RungeKutta, Tableau

CHANGED = 1e-5  # relative: larger than rounding errors of a state
Pair = tuple[Tensor, ...] | None  # the second state and further data; none at the start


class Reversible(Solver):
    r"""Abstract solver whose steps can be undone. Its memory starts with the second state."""

    def resume(self, x: Tensor, companion: Tensor | None) -> tuple[Tensor, Pair]:
        if companion is None:
            return x, None
        if companion.shape != (len(x), 2, *x.shape[1:]):
            wanted = (len(x), 2, *x.shape[1:])
            raise ValueError(
                f"the companion must have shape {wanted}, but has {tuple(companion.shape)}."
            )
        known, other = companion.unbind(1)
        slack = CHANGED * known.flatten(1).abs().amax(1)
        if known.shape != x.shape or bool(((x - known).flatten(1).abs().amax(1) > slack).any()):
            raise ValueError(
                "x is not the final state of the run that this companion belongs to; pass that state, or "
                "leave companion= out if x was changed on purpose."
            )
        return known.clone(), (other.clone(),)

    def carry(self, x: Tensor, memory: Pair) -> Tensor:
        return torch.stack([x, x if memory is None else memory[0]], dim=1)


class _Ends(NamedTuple):
    h: Scalar
    first: StateField
    last: StateField


@dataclass(frozen=True)
class ReversibleHeun(Reversible):
    r"""Creates the reversible Heun method, of order 2 at one call per step.

    .. math:: \hat x' = 2 x - \hat x + h f(\hat x) , \qquad
        x' = x + \tfrac h 2 \big( f(\hat x) + f(\hat x') \big)

    A step of size -h undoes it. On a lattice of multiples of :math:`2^{-bits}`, each
    :math:`\tfrac h 2 f` is rounded to a multiple once; sums of such numbers are exact below
    :math:`2^{53 - bits}`, and so is the way back, provided that f is bitwise reproducible.

    Arguments:
        name: The name of the method.
        bits: The number of bits after the binary point of the lattice, if there is one; states are then in
            float64.
    """

    name: str = "reversible_heun"
    bits: int | None = None

    @cached_property
    def can(self) -> Abilities:
        smooth = Abilities(
            ODE,
            order=2,
            calls_per_step=1,
            one_step=False,
            unstable="in stiff clocks",
            takes_eta=False,
            reversible=True,
        )
        if self.bits is None:
            return smooth
        limit = (
            f" (or beyond the {2.0 ** (51 - self.bits):.2g} that the lattice holds; 'lattice_heun_isotropic' and "
            "'reversible_heun' reach further)"
        )
        severed = (
            "which rounds each step to a lattice, and a rounded number has the derivative 0; use "
            "'reversible_heun', the same without the lattice, or 'heun'"
        )
        return replace(smooth, exact=True, limit=limit, severed=severed)

    def calls(self, steps: int) -> int:
        return steps + 1

    def resume(self, x: Tensor, companion: Tensor | None) -> tuple[Tensor, Pair]:
        if self.bits is None:
            return super().resume(x, companion)
        return super().resume(self._rounded(x.double()), companion)

    def plan(self, problem: ODE, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Ends]:
        times = torch.cat([t0, t1[-1:]])
        falls = bool((t1 < t0).any())
        rising = (
            times.flip(0) if falls else times
        )  # in a fixed order, so that both directions have equal bits
        fields, h = list(problem.at(rising, x)), rising.diff(dim=0)
        if falls:
            fields, h = fields[::-1], -h.flip(0)
        columns = scalars(h / 2, x), fields[:-1], fields[1:]
        return [_Ends(*column) for column in zip(*columns, strict=True)]

    def step(self, plan: _Ends, x: Tensor, memory: Pair, noise: Brownian | None) -> Step:
        other = x if memory is None else memory[0]
        force = memory[1] if memory is not None and len(memory) == 2 else plan.first(other)
        rise = self._rounded(plan.h * force)
        other = 2 * x - other + 2 * rise
        force = plan.last(other)
        x = x + (rise + self._rounded(plan.h * force))
        return Step(self._inside(x, other), (other, force))

    def _rounded(self, x: Tensor) -> Tensor:
        if self.bits is None:
            return x
        return torch.round(x * 2.0**self.bits) * 2.0**-self.bits

    def _inside(self, x: Tensor, other: Tensor) -> Tensor:
        r"""The states, with infinity in the rows whose sums on the lattice are no longer exact."""

        if self.bits is None:
            return x
        largest = torch.maximum(x.abs(), other.abs()).flatten(1).amax(1)
        inside = largest < 2.0 ** (51 - self.bits)
        return row_where(inside, x, torch.full_like(x, torch.inf))


class _Coupled(NamedTuple):
    rises: bool
    there: object  # the plan of the step from its start
    back: object  # that of the step from its end


@dataclass(frozen=True)
class McCallumFoster(Reversible):
    r"""Creates the reversible form of a Runge-Kutta method of McCallum and Foster.

    .. math:: x' = \kappa x + (1 - \kappa) \hat x + \Psi_h(\hat x) , \qquad
        \hat x' = \hat x - \Psi_{-h}(x')

    for increments :math:`\Psi`, as time rises; steps with falling time undo it.

    Arguments:
        name: The name of the method.
        tableau: The Runge-Kutta method.
        coupling: The :math:`\kappa` in (0, 1], which holds the two states together.
    """

    name: str
    tableau: Tableau
    coupling: float = 0.999

    @cached_property
    def can(self) -> Abilities:
        return Abilities(
            ODE,
            order=self.tableau.order,
            calls_per_step=2 * len(self.tableau.b),
            one_step=False,
            takes_eta=False,
            reversible=True,
        )

    def plan(self, problem: ODE, t0: Tensor, t1: Tensor, x: Tensor) -> list[_Coupled]:
        method, rises = RungeKutta(self.tableau), not bool((t1 < t0).any())
        low, high = (t0, t1) if rises else (t1, t0)
        there, back = method.plan(problem, low, high, x), method.plan(problem, high, low, x)
        return [_Coupled(rises, *ends) for ends in zip(there, back, strict=True)]

    def step(self, plan: _Coupled, x: Tensor, memory: Pair, noise: Brownian | None) -> Step:
        method: Solver = RungeKutta(self.tableau)
        kappa = self.coupling
        other = x if memory is None else memory[0]

        def moved(part: object, state: Tensor) -> Tensor:
            return method.step(part, state, None, None).x - state

        if plan.rises:
            x = kappa * x + (1 - kappa) * other + moved(plan.there, other)
            return Step(x, (other - moved(plan.back, x),))
        other = other + moved(plan.back, x)
        x = (x - (1 - kappa) * other - moved(plan.there, other)) / kappa
        return Step(x, (other,))
