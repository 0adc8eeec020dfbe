r"""The density of data under the probability flow.

In units of the data, :math:`y = x / \alpha`, and with the logarithm u of the noise level :math:`\sigma / \alpha`
as the clock, the flow of every process is :math:`dy/du = y - D(y)`. It transports data at :math:`u_0` to the
prior at :math:`u_1`, and the density changes by

.. math:: \log p_0(y_0) = \log p_1(y_1)
    + \int_{u_0}^{u_1} \big( d - \operatorname{tr} \partial_y D \big) \, du .

The path is solved first, by a solver that sees only the state, unless a run from noise to data has left one.
Then, the trace minus that of a Gaussian with the moments of the data, whose integral is known, is summed over
nodes on the path.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (39)
    | https://arxiv.org/abs/2011.13456
    | FFJORD (Grathwohl et al., 2019), section 3.1
    | https://arxiv.org/abs/1810.01367
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from solvers import Solution
from solvers.shapes import align

from ..models.masked import share_of
from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..runs.run import Run
from ..runs.settings import Settings
from ..runs.transport import transport
from .curve import ROUGH, SMOOTH, Curve, size
from .integral import PILOT, Integral, Sums, put, shared_nodes
from .prior import prior_density, prior_gap
from .result import Likelihood
from .traces import Tracer

KNOTS = 128  # of the path with adaptive steps, if the rows have nodes of their own
GAP = 0.5  # between its knots at most, in u, if they share them
PASSES = 64  # maximum, to reach a standard error
NODES, EXACT_NODES = 46, 64  # for random and for exact divergences
MISMATCH = (
    0.25  # fraction of the path's correction that may be wrong, as networks are not gradients
)


@dataclass(frozen=True)
class Flow:
    r"""Creates the densities of one batch.

    Arguments:
        model: The score model, with its conditions bound.
        x: The data, with shape (B, *).
        start: The time of the data.
        ends: The logarithms of the first and the last noise level.
        settings: The options.
        tracer: The tracer that computes traces.
        nodes: The number of nodes.
        fallback: Whether rows whose target costs more than an exact divergence get the exact one.
        known: The path from the data to the prior, if it is already there.
    """

    model: ScoreModel
    x: Tensor
    start: float
    ends: tuple[float, float]
    settings: Settings
    tracer: Tracer
    nodes: int
    fallback: bool = False
    known: Solution | None = None

    def density(self, target: float | None) -> Likelihood:
        r"""Returns the densities.

        Arguments:
            target: The standard error at which samples get no more probes, if there is one.
        """

        path = self._path() if self.known is None else self.known
        integral = Integral.of(self.model, self._curve(path), self.tracer, self.ends, self.nodes)
        sums = integral.sums()
        quadrature = self._quadrature_gap(integral, sums)
        pilot = 2 * PILOT if self.tracer.random else 0
        cost = torch.full_like(path.calls, integral.products + pilot)
        if target is not None:
            sums, quadrature, cost = self._refined(integral, sums, quadrature, cost, target)
        mismatch = MISMATCH if self.model.learned == "score" else 1.0
        end = prior_density(self.model, path.x)
        nats = end + self.tracer.companion.integral(*self.ends) - sums.trace - sums.defect
        budget = {
            "probes": sums.variance.sqrt(),
            "quadrature": quadrature,
            "path": mismatch * sums.defect.abs() + sums.turned,
            "end": sums.end.abs(),
            "prior": prior_gap(self.model, self.tracer.companion, path.x, sums.tail, self.x),
        }
        known = self.model, self.tracer, self.start, target
        return along_path(path, *known, nats=nats, slope=sums.slope, budget=budget, cost=cost)

    def _path(self) -> Solution:
        process, settings = self.model.process, self.settings
        if settings.adaptive:
            run = Run(self.model, settings, self._knots())
        else:
            run = Run.between(self.model, settings, self.start, process.t_max)
        alpha = process.scales(run.times[0])[0]
        return transport(run, align(alpha.to(self.x), self.x) * self.x)

    def _knots(self) -> Tensor:
        r"""The times at which the path of adaptive steps is kept: those of the nodes, if all rows share them."""

        process = self.model.process
        if self.tracer.random:
            return knots(process, self.start)
        nodes = shared_nodes(self.tracer, self.ends, self.nodes).u[:, 0].tolist()
        gaps = itertools.pairwise((self.ends[0], *nodes, self.ends[1]))
        pieces = [
            np.linspace(*gap, math.ceil((gap[1] - gap[0]) / GAP), endpoint=False) for gap in gaps
        ]
        times = process.time(-torch.from_numpy(np.concatenate([*pieces, self.ends[1:]])))
        times[0], times[-1] = self.start, process.t_max
        return times

    def _curve(self, path: Solution) -> Curve:
        assert path.path is not None
        process, std = self.model.process, scale_of(self.model)
        u = -process.log_snr(path.times)
        unit = (process.scales(path.times)[0] * size(u, std)).to(path.path)
        unit = unit.reshape(*unit.shape, *(1,) * (path.path.ndim - unit.ndim))
        shared = self.known is None and self.settings.adaptive and not self.tracer.random
        return Curve(u, path.path / unit, std, SMOOTH if shared else ROUGH)

    def _quadrature_gap(self, integral: Integral, sums: Sums) -> Tensor:
        r"""A bound for the difference between the sum and the integral.

        It is estimated from the change of the companion's trace, whose integral is known, and from the sums over
        every other node, if these differ by more than their noise.
        """

        companion, (u, weights) = self.tracer.companion, integral.nodes
        found = (weights * companion.change(u)).sum(0)
        low, high = companion.trace(torch.tensor(self.ends)).tolist()
        there = share_of(self.model)
        share = 1.0 if there is None else there.to(self.x.device)
        beyond = (sums.noisy_halves.abs() - sums.variance.nan_to_num().sqrt()).clamp(min=0)
        return share * (found - (low - high) / 2).abs().to(self.x.device) + sums.spread + beyond

    def _refined(
        self, integral: Integral, sums: Sums, quadrature: Tensor, cost: Tensor, target: float
    ) -> tuple[Sums, Tensor, Tensor]:
        r"""The sums with the wanted standard error, by more passes, or exact if that takes fewer products."""

        d = self.x[0].numel()
        more = (sums.variance.sqrt() / target).square() - 1  # passes
        dear = (more > EXACT_NODES * d / integral.products) & self.fallback
        trace, noise, passes = repeated(integral, sums, target, ~dear)
        sums = sums._replace(trace=trace, variance=noise)
        cost = cost + ((passes - 1) * integral.products).to(cost)
        rows = dear.nonzero()[:, 0]
        if len(rows):
            tracer = replace(self.tracer.rows(rows), kind="exact")
            known = self.model.rows(rows), integral.curve.rows(rows), tracer
            exact = Integral.of(*known, self.ends, EXACT_NODES)
            found = exact.sums()
            sums = put(sums, found, rows)
            quadrature = quadrature.index_copy(0, rows, self._quadrature_gap(exact, found))
            cost[rows.to(cost.device)] += exact.products
        return sums, quadrature, cost


def along_path(
    path: Solution,
    model: ScoreModel,
    tracer: Tracer,
    start: float,
    target: float | None,
    *,
    nats: Tensor,
    slope: Tensor,
    budget: dict[str, Tensor],
    cost: Tensor,
) -> Likelihood:
    r"""Returns densities as a result, in which they are NaN for samples whose path failed.

    Arguments:
        path: The path from the data to the prior.
        model: The model.
        tracer: The tracer that computed traces.
        start: The time of the data.
        target: The standard error that was wanted, if there was one.
        nats: The densities.
        slope: The scores near `start`.
        budget: The parts of their errors.
        cost: The Jacobian products of each sample.
    """

    process = model.process
    failed = torch.tensor([s != "ok" for s in path.status], device=path.x.device)
    budget = {name: v.detach().masked_fill(failed, math.nan) for name, v in budget.items()}
    slope = slope.detach().flatten(1).masked_fill(failed[:, None], math.nan)
    return Likelihood(
        nats=nats.masked_fill(failed, math.nan),
        stderr=budget["probes"],
        latent=path.x,
        calls=path.calls,
        derivatives=cost,
        dimension=path.x[0].numel(),
        t_min=start,
        noise_level=process.noise_level(start) if process.has_levels else math.nan,
        slope=slope.reshape(path.x.shape),
        budget=budget,
        status=path.status,
        provenance={
            **path.provenance,
            "divergence": tracer.kind,
            "target_stderr": target,
            "domain": (process.t_min, process.start_of("likelihood")),
            "guided": model.guided,
        },
    )


def knots(process: Process, start: float) -> Tensor:
    r"""Returns times from the data to the prior at which the path of adaptive steps is kept."""

    ends = torch.tensor([start, process.t_max], dtype=torch.float64)
    first, last = (-process.log_snr(ends)).tolist()
    times = process.time(-torch.linspace(first, last, KNOTS, dtype=torch.float64))
    times[0], times[-1] = ends
    return times


class Passed(Protocol):
    r"""The sums of one pass."""

    @property
    def trace(self) -> Tensor: ...
    @property
    def variance(self) -> Tensor: ...


class Passes(Protocol):
    r"""An integral whose probes may be drawn again."""

    def rows(self, index: Tensor) -> "Passes": ...
    def sums(self, number: int) -> Passed: ...


def repeated(
    integral: Passes, sums: Passed, target: float, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the mean trace of as many passes as each row needs, its variance, and their numbers.

    Arguments:
        integral: The integral.
        sums: The sums of its first pass.
        target: The standard error that is needed.
        wanted: Whether more passes are wanted, with shape (B,).
    """

    trace, noise = sums.trace, sums.variance  # sums over passes
    passes = torch.ones_like(noise)
    for number in range(1, PASSES):
        rows = (wanted & (noise.sqrt() > target * passes)).nonzero()[:, 0]
        if not len(rows):
            break
        more = integral.rows(rows).sums(number)
        trace = trace.index_add(0, rows, more.trace)
        noise = noise.index_add(0, rows, more.variance)
        passes[rows] += 1
    return trace / passes, noise / passes**2, passes
