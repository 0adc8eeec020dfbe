r"""The density of data under the probability flow of any drift.

For a process without scales, data is the state at :math:`t_0`, the flow is
:math:`v = f - \frac{1}{2} g^2 \nabla \log p_t`, and

.. math:: \log p_{t_0}(x_0) = \log p_{t_1}(x_1) + \int_{t_0}^{t_1} \nabla \cdot v(x_t, t) \, dt .

The path is solved first. Its interpolant has the slope :math:`v + \delta`, so the integral of
:math:`\nabla \log p_t \cdot \delta` is taken out, as far as the model's score is a gradient. Both integrals are
Gauss-Legendre sums over :math:`u = \sqrt{(t - t_0) / (t_1 - t_0)}`, or over another variable whose nodes are dense
near data.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (39)
    | https://arxiv.org/abs/2011.13456
    | FFJORD (Grathwohl et al., 2019), section 3.1
    | https://arxiv.org/abs/1810.01367
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from solvers import Solution
from solvers.noise.brownian import PROBES, keyed_normal

from ..models.score_model import ScoreModel
from ..processes.blocks.process import BlockProcess
from ..processes.process import Process
from ..processes.schedules import invert
from ..runs.run import Run
from ..runs.settings import Settings
from ..runs.transport import transport
from .curve import SMOOTH, interpolated
from .flow import EXACT_NODES, MISMATCH, along_path, repeated
from .result import Likelihood
from .traces import Tracer, variance

KNOTS = 256  # of the path with adaptive steps, which may rotate all the way
FIRST_DRAW = 1000  # of the probes of nodes
DRAWS, PLACES, FIRST_PRIOR = 8, 4, 2**20  # of the prior, with which the law at the end is compared


class Rule(NamedTuple):
    r"""A sum over times.

    Arguments:
        times: The times, ascending, with shape (n,), in float64.
        weights: The weights, with shape (n, 1).
        halves: Those of the sums over every other time, from the first and from the second, with shape (2, n, 1).
    """

    times: Tensor
    weights: Tensor
    halves: Tensor

    @staticmethod
    def of(start: float, stop: float, count: int, process: Process) -> "Rule":
        r"""Returns the rule between two times of a process."""

        nodes, weights = np.polynomial.legendre.leggauss(count)
        halves = np.zeros((2, count))
        for first in (0, 1):
            some = nodes[first::2]
            powers = np.polynomial.legendre.legvander(some, len(some) - 1)
            halves[first, first::2] = np.linalg.solve(powers.T, 2.0 * np.eye(len(some))[0])
        u = torch.from_numpy(nodes + 1) / 2
        times, slopes = places(process, start, stop, u)
        slopes = slopes / 2
        whole, parts = slopes * torch.from_numpy(weights), slopes * torch.from_numpy(halves)
        return Rule(times, whole[:, None], parts[..., None])

    def gap(self, values: Tensor) -> Tensor:
        r"""Returns a bound for the error of the sum, the largest difference from those over half of the times.

        Arguments:
            values: The values at all times, with shape (n, B).
        """

        whole = (self.weights.to(values.device) * values).sum(0)
        return ((self.halves.to(values.device) * values).sum(1) - whole).abs().amax(0)


def places(process: Process, start: float, stop: float, u: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns times at fractions u in [0, 1] of the way between two times, dense near data, and their slopes.

    Of a process on blocks, u is the mean of the fractions of time and of log-SNR, which may hardly fall while the
    state turns.
    """

    span = stop - start
    if not isinstance(process, BlockProcess):
        return start + span * u**2, 2 * span * u
    first, last = process.log_snr(torch.tensor([start, stop], dtype=torch.float64))

    def left(t: Tensor) -> Tensor:
        return -(((process.log_snr(t) - first) / (last - first)) + (t - start) / span) / 2

    times = invert(left, -u, (start, stop))
    return times, 2 / (process.slope(times) / (last - first) + 1 / span)


class Sums(NamedTuple):
    r"""Sums over the nodes, each with shape (B,), in float64.

    Arguments:
        trace: The integral of the divergence.
        variance: Its variance due to the probes.
        defect: The integral of the score times the defect of the path.
        mismatch: The same without signs.
        quadrature: A bound for the error of the sums, beyond the noise of the probes.
    """

    trace: Tensor
    variance: Tensor
    defect: Tensor
    mismatch: Tensor
    quadrature: Tensor


@dataclass(frozen=True)
class TimeIntegral:
    r"""Creates the integral over time along a path.

    Arguments:
        model: The score model, with its conditions bound.
        knots: The times of the path, with shape (K,) or (K, B).
        states: The states there, with shape (K, B, *).
        tracer: The tracer that computes traces.
        rule: The sum.
    """

    model: ScoreModel
    knots: Tensor
    states: Tensor
    tracer: Tracer
    rule: Rule

    @property
    def products(self) -> int:
        r"""The Jacobian products and other calls of one pass."""

        return len(self.rule.times) * (self.tracer.products + 1)

    def rows(self, index: Tensor) -> Self:
        r"""Returns the integral for some rows."""

        return replace(
            self,
            model=self.model.rows(index),
            knots=self.knots if self.knots.ndim == 1 else self.knots[:, index.cpu()],
            states=self.states[:, index.to(self.states.device)],
            tracer=self.tracer.rows(index),
        )

    def sums(self, number: int = 0) -> Sums:
        r"""Returns the sums of one pass.

        Arguments:
            number: The number of the pass, which has its own probes.
        """

        batch, device = self.states.shape[1], self.states.device
        zeros, weights = torch.zeros(batch), self.rule.weights.expand(-1, batch).to(device)
        traces, defects, parts = [], [], []
        for j, t in enumerate(self.rule.times):
            y, slope = interpolated(self.knots, self.states, t.expand(batch), SMOOTH)
            field = partial(_velocity, self.model, t)
            node = self.tracer(field, y, zeros, FIRST_DRAW + number * len(weights) + j)
            score, off = self.model.score(y, t), slope - node.denoised
            traces.append(node.value)
            defects.append((score * off).flatten(1).double().sum(1))
            if node.parts is not None:
                parts.append(node.parts.detach())
        found, defect = torch.stack(traces), torch.stack(defects)
        unknown = math.nan if self.tracer.kind == "fixed" else 0.0
        times = self.rule.times[:, None].expand(-1, batch)
        noise = variance(parts, weights, times) if parts else weights[0] * 0 + unknown
        trace_gap, defect_gap = self.rule.gap(found.detach()), self.rule.gap(defect.detach())
        if self.tracer.random:
            trace_gap = (trace_gap - noise.sqrt()).clamp(min=0)
        return Sums(
            trace=(weights * found).sum(0),
            variance=noise,
            defect=(weights * defect).sum(0),
            mismatch=(weights * defect.detach().abs()).sum(0),
            quadrature=trace_gap + defect_gap,
        )


@dataclass(frozen=True)
class GeneralFlow:
    r"""Creates the densities of one batch.

    Arguments:
        model: The score model, with its conditions bound.
        x: The data, with shape (B, *).
        start: The time of the data.
        ends: The first and the last time.
        settings: The options.
        tracer: The tracer that computes traces.
        nodes: The number of nodes.
        fallback: Whether rows whose target costs more than an exact divergence get the exact one.
    """

    model: ScoreModel
    x: Tensor
    start: float
    ends: tuple[float, float]
    settings: Settings
    tracer: Tracer
    nodes: int
    fallback: bool = False

    def density(self, target: float | None) -> Likelihood:
        r"""Returns the densities.

        Arguments:
            target: The standard error at which samples get no more probes, if there is one.
        """

        path, process = self._path(), self.model.process
        assert path.path is not None
        rule = Rule.of(*self.ends, self.nodes, process)
        integral = TimeIntegral(self.model, path.times, path.path, self.tracer, rule)
        sums = integral.sums()
        cost = torch.full_like(path.calls, integral.products + (DRAWS + 1) * PLACES)
        if target is not None:
            sums, cost = self._refined(integral, sums, cost, target)
        budget = {
            "probes": sums.variance.sqrt(),
            "quadrature": sums.quadrature,
            "path": MISMATCH * sums.mismatch,
            "prior": self._prior_gap(path.x),
        }
        nats = process.prior_log_prob(path.x) + sums.trace - sums.defect
        slope = self.model.score(self.x, torch.tensor(self.start, dtype=torch.float64))
        known = self.model, self.tracer, self.start, target
        return along_path(path, *known, nats=nats, slope=slope, budget=budget, cost=cost)

    def _path(self) -> Solution:
        settings, (start, stop) = self.settings, self.ends
        if not settings.adaptive:
            return transport(Run.between(self.model, settings, start, stop), self.x)
        u = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
        times = places(self.model.process, start, stop, u)[0]
        times[0], times[-1] = start, stop
        return transport(Run(self.model, settings, times), self.x)

    def _refined(
        self, integral: TimeIntegral, sums: Sums, cost: Tensor, target: float
    ) -> tuple[Sums, Tensor]:
        r"""The sums with the wanted standard error, by more passes, or exact if that takes fewer products."""

        more = (sums.variance.sqrt() / target).square() - 1  # passes
        dear = (more > EXACT_NODES * self.x[0].numel() / integral.products) & self.fallback
        trace, noise, passes = repeated(integral, sums, target, ~dear)
        sums = sums._replace(trace=trace, variance=noise)
        cost = cost + ((passes - 1) * integral.products).to(cost)
        rows = dear.nonzero()[:, 0]
        if len(rows):
            exact = integral.rows(rows)
            exact = replace(
                exact,
                tracer=replace(exact.tracer, kind="exact"),
                rule=Rule.of(*self.ends, EXACT_NODES, self.model.process),
            )
            found = zip(sums, exact.sums(), strict=True)
            sums = Sums(*(a.index_copy(0, rows, b) for a, b in found))
            cost[rows.to(cost.device)] += exact.products
        return sums, cost

    @torch.no_grad()
    def _prior_gap(self, x: Tensor) -> Tensor:
        r"""The size of the difference between the log-densities of the law at the end and of the prior, as (B,).

        The score gives the difference along the line from the mean of the prior. In the mean over the prior, the
        exponential of the difference is 1, so at x it is about as large as its change from draws of the prior,
        of which the largest counts.
        """

        z, like = self.model.process.standardised(x), x[0].numel()
        seed, index = self.tracer.seed, self.tracer.index
        drawn = [
            keyed_normal(seed, index, PROBES, FIRST_PRIOR + k, like).to(x).reshape(x.shape)
            for k in range(DRAWS)
        ]
        mean = x - self.model.process.deviations(z)
        here, *others = (self._beyond_prior(mean, one) for one in (z, *drawn))
        return torch.stack([(here - other).abs() for other in others]).amax(0)

    def _beyond_prior(self, mean: Tensor, z: Tensor) -> Tensor:
        r"""The difference at m + s z, minus that at the mean m, by a Gauss-Legendre sum along the line."""

        apart, end = self.model.process.deviations(z), torch.tensor(self.ends[1]).double()
        total = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        nodes, weights = np.polynomial.legendre.leggauss(PLACES)
        for share, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            score = self.model.score(mean + share * apart, end)
            total += weight * (apart * score + share * z * z).flatten(1).double().sum(1)
        return total


def _velocity(model: ScoreModel, t: Tensor, x: Tensor) -> Tensor:
    return model.velocity(x, t)
