r"""The integral of the trace along a path.

An interpolated numerical path differs slightly from the flow: its slope is off by a defect
:math:`\delta = dy/du - (y - D)`. Along any curve,

.. math:: \frac{d}{du} \log p_u(y) = \operatorname{tr} \partial_y D - d + \nabla \log p_u(y) \cdot \delta ,

so the sum over :math:`\nabla \log p_u \cdot \delta = (D - y) \cdot \delta / s^2` removes the effect of the
defect, as far as the model's score is the gradient of its own log-density.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.problem import StateField

from ..models.masked import masked_of
from ..models.score_model import ScoreModel
from .curve import Curve
from .nodes import Nodes, base_density, place, refined_density, table
from .prior import Tail
from .traces import Tracer, variance

PILOT = 8  # nodes of two probes each, which decide where the others go
FIRST_DRAW = 1000  # earlier draws are the pilot's


class Sums(NamedTuple):
    r"""Sums over the nodes, each with shape (B,), in float64.

    Arguments:
        trace: The integral of the trace minus the companion's.
        variance: Its variance due to the probes.
        defect: The integral of the score times the defect of the path.
        spread: A bound for the error of the sum of the noise-free terms (:func:`gap`).
        noisy_halves: Half the difference between the sums of the noisy terms over the even and the odd nodes,
            which has the variance of their sum.
        turned: The additional effect that the defect may have because the score is not a gradient.
        end: The change of the log-density if the noise at the start is removed, to first order.
        slope: The score at the first node, with shape (B, d), or NaN if it is not known.
        tail: The data of the last node.
    """

    trace: Tensor
    variance: Tensor
    defect: Tensor
    spread: Tensor
    noisy_halves: Tensor
    turned: Tensor
    end: Tensor
    slope: Tensor
    tail: Tail


@dataclass(frozen=True)
class Integral:
    r"""Creates the integral over the logarithm of the noise level.

    Arguments:
        model: The score model, with its conditions bound.
        curve: The path.
        tracer: The tracer that computes traces.
        nodes: The nodes.
        first: The logarithm of the first noise level.
        twist: The pilot's estimate of the squared twist, with shape (B,), if there was a pilot.
    """

    model: ScoreModel
    curve: Curve
    tracer: Tracer
    nodes: Nodes
    first: float
    twist: Tensor | None = None

    @staticmethod
    def of(
        model: ScoreModel, curve: Curve, tracer: Tracer, ends: tuple[float, float], count: int
    ) -> "Integral":
        r"""Returns the integral with its nodes placed; for random probes, they go where a pilot finds noise."""

        if not tracer.random:
            return Integral(model, curve, tracer, shared_nodes(tracer, ends, count), ends[0])
        u = table(*ends)
        base = base_density(tracer.companion, u)
        integral = Integral(model, curve, tracer, place(u, base, PILOT), ends[0])
        pilot = integral.nodes.u
        with torch.no_grad():
            found = [
                tracer.pilot(field, y, here, draw)
                for draw, (here, field, y, _) in enumerate(integral.along())
            ]
        noise, twist = (torch.stack(values) for values in zip(*found, strict=True))
        density = refined_density(base, u, pilot[:, 0], noise)
        return replace(integral, nodes=place(u, density, count), twist=twist.mean(0))

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
            None if self.twist is None else self.twist[index.to(self.twist.device)],
        )

    @property
    def products(self) -> int:
        r"""The Jacobian products of one pass."""

        return len(self.nodes.u) * self.tracer.products

    def along(self) -> Iterator[tuple[Tensor, StateField, Tensor, Tensor]]:
        r"""Yields the nodes, the denoiser there, the states, and their slopes."""

        u = self.nodes.u.expand(-1, self.curve.states.shape[1])
        fields = denoisers(self.model, u, self.curve.states[0])
        for here, shared, field in zip(u, self.nodes.u, fields, strict=True):
            yield here, field, *self.curve(shared)

    def sums(self, number: int = 0) -> Sums:
        r"""Returns the sums of one pass.

        Arguments:
            number: The number of the pass, which has its own probes.
        """

        like = self.curve.states[0]
        found: list[tuple[Tensor, Tensor]] = []
        parts: list[Tensor] = []
        twists: list[Tensor] = []
        turned = torch.zeros_like(like, dtype=torch.float64).flatten(1)
        weights = self.nodes.weights.expand(-1, len(like)).to(like.device)
        for j, (here, field, y, slope) in enumerate(self.along()):
            node = self.tracer(field, y, here, FIRST_DRAW + number * len(weights) + j)
            noise = (y - node.denoised).flatten(1).double()
            force = self._force(y, noise, here.to(y.device))
            off = slope.flatten(1) - noise
            found.append((node.value, -(force * off).sum(1)))
            turned = turned + (weights[j] * force.norm(dim=1))[:, None].detach() * off.detach()
            if j == 0:
                end = self._end(here.to(y.device), node.value, force, noise)
                score = (
                    -force if self.model.learned == "score" else torch.full_like(force, math.nan)
                )
            for kept, value in ((parts, node.parts), (twists, node.twist)):
                if value is not None:
                    kept.append(value.detach())
        values, defects = (weights * torch.stack(terms) for terms in zip(*found, strict=True))
        noisy = values.detach() if self.tracer.random else torch.zeros_like(weights)
        unknown = math.nan if self.tracer.kind == "fixed" else 0.0
        return Sums(
            trace=values.sum(0),
            variance=variance(parts, weights, self.nodes.u) if parts else weights[0] * 0 + unknown,
            defect=defects.sum(0),
            spread=gap(defects.detach() + values.detach() - noisy),
            noisy_halves=_halves(noisy),
            turned=self._turned(turned, twists),
            end=end,
            slope=score,
            tail=Tail.of(self.tracer.companion, y, here.to(y.device), node.denoised, node.value),
        )

    def _force(self, y: Tensor, noise: Tensor, here: Tensor) -> Tensor:
        r"""Minus the score, or that of the companion for models that have learned no score."""

        if self.model.learned != "score":
            noise = (y - self.tracer.companion.denoise(y, here)).flatten(1).double()
        return noise / torch.exp(2 * here)[:, None]

    def _end(self, here: Tensor, trace: Tensor, force: Tensor, noise: Tensor) -> Tensor:
        divergence = trace + self.tracer.companion.trace(here) - noise.shape[1]
        if (part := masked_of(self.model)) is not None:
            divergence = divergence + part.absent(noise) / (
                1 + part.scale**2 * torch.exp(-2 * here)
            )
        order = 2 if self.model.learned == "score" else 1  # of the change with coupled noise
        shrink = torch.exp(order * (self.first - here)) / order
        return shrink * (divergence + (force * noise).sum(1))

    def _turned(self, turned: Tensor, twists: list[Tensor]) -> Tensor:
        r"""Two standard deviations of the effect of the defect that a score with this twist misses."""

        squared = torch.stack(twists).mean(0) if twists else self.twist
        if squared is None:
            return torch.zeros_like(turned[:, 0])
        return 2 * squared.sqrt() * turned.norm(dim=1) / math.sqrt(turned.shape[1])


def shared_nodes(tracer: Tracer, ends: tuple[float, float], count: int) -> Nodes:
    r"""Returns the nodes of an integral without noise of its own at each node, which are those of all rows."""

    u = table(*ends)
    return place(u, base_density(tracer.companion, u), count)


def gap(terms: Tensor) -> Tensor:
    r"""Returns a bound for the error of a midpoint sum, with shape (B,).

    It is half the difference between the sums over the even and the odd nodes, which can agree by chance, plus
    two standard deviations of a sum of noise with the same fourth differences as the terms (second differences
    at the ends). These are small for smooth terms, but not at kinks, such as those of a path at its knots.

    Arguments:
        terms: The weighted values at the nodes, with shape (n, B), n >= 5.
    """

    bends = terms.diff(n=2, dim=0)
    noise = bends.diff(n=2, dim=0).square().sum(0) / 70 + bends[[0, -1]].square().sum(0) / 6
    return _halves(terms).abs() + 2 * noise.sqrt()


def _halves(terms: Tensor) -> Tensor:
    return terms[::2].sum(0) - terms[1::2].sum(0)


def put(whole: Sums, part: Sums, rows: Tensor) -> Sums:
    r"""Returns sums with some rows replaced."""

    tail = Tail(*(a.index_copy(0, rows, b) for a, b in zip(whole.tail, part.tail, strict=True)))
    others = zip(whole[:-1], part[:-1], strict=True)
    return Sums(*(a.index_copy(0, rows, b) for a, b in others), tail=tail)  # type: ignore[union-attr,arg-type,misc]


def denoisers(model: ScoreModel, u: Tensor, x: Tensor) -> Sequence[StateField]:
    r"""Returns :math:`y \mapsto D(\alpha y)` at the given noise levels.

    Arguments:
        model: The score model.
        u: The logarithms of the noise levels, with shape (n, B).
        x: A state, which sets shape, dtype and device.
    """

    times = model.process.time(-u)
    alpha = model.process.scales(times)[0]
    return model.combine(times, torch.zeros_like(u), torch.ones_like(u), alpha, x)
