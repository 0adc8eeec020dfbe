r"""The density of data under the probability flow.

The flow :math:`dx = v \, d\lambda` carries data at :math:`\lambda_0` to the prior at
:math:`\lambda_1`, and the density changes by the divergence along the path,

.. math:: \log p_0(x_0) = \log p_1(x_1) + \int_{\lambda_0}^{\lambda_1} \nabla \cdot v \, d\lambda .

The path is solved first, by a solver that sees the state alone. The integral then is a
Gauss-Legendre sum over nodes on it, where the divergence is exact, or estimated with fresh
probes at each node.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), equation (39)
    | https://arxiv.org/abs/2011.13456
    | FFJORD (Grathwohl et al., 2019), section 3.1
    | https://arxiv.org/abs/1810.01367
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solvers import ODE
from solvers.divergence import basis, quadratic_forms, rademacher

from ..checks import check_data
from ..latents.encode import refuse_noise, signal
from ..models import ScoreModel
from ..reverse import Reverse
from ..settings import Settings, split
from ..transport import transport

NODES, PROBES, EXACT_UP_TO = 64, 4, 256
DEFAULTS: dict[str, Any] = {"solver": "exponential", "rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True)
class Likelihood:
    r"""The log-density of data.

    It is the density of :math:`x_0 + (\sigma / \alpha) z` at `t_min`, in the units of the data.

    Arguments:
        nats: The log-density, with shape (B,), in float64; higher is likelier. NaN for samples
            whose path failed, if that is allowed.
        stderr: Its standard error from the probes: 0 if exact, NaN for a single probe.
        latent: The state at the end of the flow, with shape (B, *).
        calls: The network calls of each sample along the path, with shape (B,).
        derivatives: The Jacobian products of each sample, with shape (B,).
        dimension: The number of dimensions.
        t_min: The time of the data.
        noise_level: Its noise level :math:`\sigma / \alpha`.
        budget: What is known of the error beside the probes, in nats.
        provenance: What made it.
    """

    nats: Tensor
    stderr: Tensor
    latent: Tensor
    calls: Tensor
    derivatives: Tensor
    dimension: int
    t_min: float
    noise_level: float
    budget: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    *,
    divergence: Literal["auto", "exact", "hutchinson"] = "auto",
    probes: int | None = None,
    nodes: int = NODES,
    **options: Any,
) -> Likelihood:
    r"""Returns the log-density of data under the probability flow.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        divergence: "exact" takes one Jacobian product per dimension and node, "hutchinson" one per
            probe and node. "auto" is exact up to 256 dimensions, unless `probes` is given.
        probes: The number of fresh probes at each node. By default 4.
        nodes: The number of nodes of the sum. With `steps=`, the grid gives them.
        options: Those of :class:`scoresde.Settings`, and the conditions of the model. The default
            solver is "exponential" with tolerances of 1e-5.

    Raises:
        ValueError, TypeError: If an option or condition does not fit.
        SolverError: If the run fails.
    """

    batch = len(x) if isinstance(x, Tensor) else None
    model, settings = split(model, options, batch, **DEFAULTS)
    refuse_noise(settings)
    exact = _is_exact(divergence, probes, x)
    x = check_data(model, x, "x", settings.dtype, settings.device)
    start = model.process.start_of("likelihood") if settings.t_min is None else settings.t_min
    model.process.check_inside("t_min", start)
    times, weights = _nodes(model, settings, start, nodes)
    parts = []
    for rows in torch.arange(len(x)).split(settings.batch_size or len(x)):
        known = replace(
            settings,
            path=True,
            batch_size=None,
            first_index=settings.first_index + int(rows[0]),
        )
        integral = _Integral(times, weights, exact, probes or PROBES)
        parts.append(_batch(model.rows(rows), x[rows.to(x.device)], integral, known))
    return _join(parts)


class _Integral(NamedTuple):
    r"""How the divergence is integrated: the times of the path, and the weights of its nodes."""

    times: Tensor
    weights: Tensor
    exact: bool
    probes: int


def _batch(model: ScoreModel, x: Tensor, integral: _Integral, settings: Settings) -> Likelihood:
    times, weights, exact, probes = integral
    start = times[0].item()
    process, alpha = model.process, signal(model, start)
    path = transport(model, alpha * x, times, settings)
    assert path.path is not None
    flow = Reverse(model, ODE, 0.0, "log_snr").problem()
    fields = flow.at(process.log_snr(times[1:-1]), x)
    index = torch.arange(len(x), device=x.device) + settings.first_index
    trace, variance = torch.zeros(2, len(x), dtype=torch.float64, device=x.device)
    for node, (weight, f) in enumerate(zip(weights.tolist(), fields, strict=True)):
        state = path.path[node + 1]
        v = basis(state) if exact else rademacher(settings.seed or 0, index, node, probes, state)
        forms = quadratic_forms(f, state, v)
        trace += weight * (forms.sum(0) if exact else forms.mean(0))
        if not exact:  # a single probe tells nothing of its error
            variance += weight**2 * forms.var(0) / probes if probes > 1 else math.nan
    failed = torch.tensor([status != "ok" for status in path.status], device=x.device)
    trace[failed] = variance[failed] = math.nan
    d = x[0].numel()
    count = len(weights) * (d if exact else probes)
    return Likelihood(
        nats=process.prior_log_prob(path.x) + trace + d * math.log(alpha),
        stderr=variance.sqrt(),
        latent=path.x,
        calls=path.calls,
        derivatives=torch.full_like(path.calls, count),
        dimension=d,
        t_min=start,
        noise_level=process.noise_level(start),
        budget={"prior": d * process.prior_gap(model.data_std)},
        provenance={**path.provenance, "divergence": "exact" if exact else f"{probes} probes"},
    )


def _nodes(
    model: ScoreModel, settings: Settings, start: float, nodes: int
) -> tuple[Tensor, Tensor]:
    r"""The times of the path, whose inner ones are the nodes, and the weights of these."""

    if settings.grid is not None or settings.times is not None:
        raise ValueError("grid= and times= have no effect: the nodes of the sum are the grid.")
    if not settings.adaptive and settings.steps is not None:
        if settings.steps < 2:
            raise ValueError(
                f"steps must be at least 2 for a likelihood, but is {settings.steps}."
            )
        nodes = settings.steps - 1
    if nodes < 1:
        raise ValueError(f"nodes must be at least 1, but is {nodes}.")
    process = model.process
    ends = torch.tensor([start, process.t_max], dtype=torch.float64)
    first, last = process.log_snr(ends).tolist()
    points, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(nodes))
    inner = process.time((first + last) / 2 + (last - first) / 2 * points)
    times = torch.cat([ends[:1], inner, ends[1:]])
    return times, weights * (last - first) / 2


def _is_exact(divergence: str, probes: int | None, x: Tensor) -> bool:
    if divergence not in ("auto", "exact", "hutchinson"):
        raise ValueError(
            f"divergence must be 'auto', 'exact' or 'hutchinson', not {divergence!r}."
        )
    if divergence == "exact" and probes is not None:
        raise ValueError("probes= has no effect on an exact divergence; pass one of the two.")
    if probes is not None and (
        isinstance(probes, bool) or not isinstance(probes, int) or probes < 1
    ):
        raise ValueError(f"probes must be a whole number of at least 1, but is {probes}.")
    if divergence != "auto":
        return divergence == "exact"
    return probes is None and isinstance(x, Tensor) and math.prod(x.shape[1:]) <= EXACT_UP_TO


def _join(parts: list[Likelihood]) -> Likelihood:
    names = ("nats", "stderr", "latent", "calls", "derivatives")
    joined: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in names
    }
    return replace(parts[0], **joined)
