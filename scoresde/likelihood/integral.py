r"""The integral of the trace along a path.

A path that a solver found, and that is interpolated, is not quite the flow's: its slope is off by a
defect :math:`\delta = dy/du - (y - D)`. Along any curve at all,

.. math:: \frac{d}{du} \log p_u(y) = \operatorname{tr} \partial_y D - d + \nabla \log p_u(y) \cdot \delta ,

so the sum over :math:`\nabla \log p_u \cdot \delta = (D - y) \cdot \delta / s^2` takes out what the
defect did, as far as the model's score is the gradient of its own log-density.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.problem import StateField

from ..models import ScoreModel
from .curve import Curve
from .nodes import Nodes, base_density, place, refined_density, table
from .traces import Tracer, variance

PILOT = 8  # nodes of two probes each, which say where the others go
FIRST_DRAW = 1000  # the draws before it are the pilot's


class Sums(NamedTuple):
    r"""Sums over the nodes, each with shape (B,), in float64.

    Arguments:
        trace: The integral of the trace beyond the companion's.
        variance: Its variance from the probes.
        defect: The integral of the score times the defect of the path.
        halves: Half the difference between the sums over the even and the odd nodes, of all that
            is free of noise.
        noisy_halves: The same of what is not, whose variance is that of the sum.
        end: What the log-density changes by if the noise at the start is taken away, to first order.
    """

    trace: Tensor
    variance: Tensor
    defect: Tensor
    halves: Tensor
    noisy_halves: Tensor
    end: Tensor


@dataclass(frozen=True)
class Integral:
    r"""Creates the integral over the logarithm of the noise level.

    Arguments:
        model: The score model, with its conditions bound.
        curve: The path.
        tracer: How traces are found.
        nodes: The nodes.
        first: The logarithm of the first noise level.
    """

    model: ScoreModel
    curve: Curve
    tracer: Tracer
    nodes: Nodes
    first: float

    @staticmethod
    def of(
        model: ScoreModel, curve: Curve, tracer: Tracer, ends: tuple[float, float], count: int
    ) -> "Integral":
        r"""Returns the integral with its nodes placed: for random probes, where a pilot finds noise."""

        u = table(*ends)
        base = base_density(tracer.companion, u)
        integral = Integral(model, curve, tracer, place(u, base, PILOT), ends[0])
        if not tracer.random:
            return replace(integral, nodes=place(u, base, count))
        pilot = integral.nodes.u
        with torch.no_grad():
            noise = torch.stack([
                tracer.noise(field, y, here, draw)
                for draw, (here, field, y, _) in enumerate(integral.along())
            ])  # fmt: skip
        density = refined_density(base, u, pilot[:, 0], noise)
        return replace(integral, nodes=place(u, density, count))

    def rows(self, index: Tensor) -> "Integral":
        r"""Returns the integral for some rows."""

        u, weights = (
            value if value.shape[1] == 1 else value[:, index.cpu()] for value in self.nodes
        )
        return Integral(
            self.model.rows(index),
            self.curve.rows(index),
            self.tracer.rows(index),
            Nodes(u, weights),
            self.first,
        )

    @property
    def products(self) -> int:
        r"""The Jacobian products of one pass."""

        return len(self.nodes.u) * self.tracer.products

    def along(self) -> Iterator[tuple[Tensor, StateField, Tensor, Tensor]]:
        r"""Returns the nodes, the denoiser there, the states, and their slopes."""

        u = self.nodes.u.expand(-1, self.curve.states.shape[1])
        for here, field in zip(u, denoisers(self.model, u, self.curve.states[0]), strict=True):
            yield here, field, *self.curve(here)

    def sums(self, number: int = 0) -> Sums:
        r"""Returns the sums of one pass.

        Arguments:
            number: The number of the pass, which has probes of its own.
        """

        like = self.curve.states[0]
        zero = torch.zeros(len(like), dtype=torch.float64, device=like.device)
        total, defects, halves, noisy, end = zero, zero, zero, zero, zero
        parts = []
        weights = self.nodes.weights.expand(-1, len(like)).to(like.device)
        for j, (here, field, y, slope) in enumerate(self.along()):
            node = self.tracer(field, y, here, FIRST_DRAW + number * len(weights) + j)
            here, weight = here.to(y.device), weights[j]
            noise = (y - node.denoised).flatten(1).double()
            force = noise / torch.exp(2 * here)[:, None]  # minus the score
            defect = -(force * (slope.flatten(1) - noise)).sum(1)
            total, defects = total + weight * node.value, defects + weight * defect
            sign = (-1) ** j * weight
            halves = halves + sign * defect.detach()
            if self.tracer.random:
                noisy = noisy + sign * node.value.detach()
            else:
                halves = halves + sign * node.value.detach()
            if j == 0:
                divergence = node.value + self.tracer.companion.trace(here) - noise.shape[1]
                shrink = torch.exp(2 * (self.first - here)) / 2
                end = shrink * (divergence + (force * noise).sum(1))
            if node.parts is not None:
                parts.append(node.parts.detach())
        unknown = math.nan if self.tracer.kind == "fixed" else 0.0
        return Sums(
            total,
            variance(parts, weights, self.nodes.u) if parts else zero + unknown,
            defects,
            halves,
            noisy,
            end,
        )


def denoisers(model: ScoreModel, u: Tensor, x: Tensor) -> Sequence[StateField]:
    r"""Returns :math:`y \mapsto D(\alpha y)` at some noise levels.

    Arguments:
        model: The score model.
        u: The logarithms of the noise levels, with shape (n, B).
        x: A state, which gives shape, dtype and device.
    """

    times = model.process.time(-u)
    alpha = model.process.scales(times)[0]
    return model.combine(times, torch.zeros_like(u), torch.ones_like(u), alpha, x)
