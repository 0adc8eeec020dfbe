r"""Grids from a calibration run: Align Your Steps (KLUB) and GITS, for solvers of the catalogue.

KLUB bounds the divergence of a stochastic solver that holds the value N since the last level: its density is
E |N(t) - N(s)|^2 / (l + level^2) in log-SNR, in coordinates of variance l (0 for the data form, as published). For
Gaussian data of variance c^2 in the data form, steps of equal length in log(1 + c^2 / level^2) minimise it: "klub".
GITS counts the error of Euler's steps along a path of the flow. Both find their levels among nodes by dynamic
programming.

References:
    | Align Your Steps (Sabour et al., 2024), section 3
    | https://arxiv.org/abs/2404.14507
    | On the Trajectory Regularity of ODE-based Diffusion Sampling (Chen et al., 2024), section 4
    | https://arxiv.org/abs/2405.11326
"""

from functools import cache, partial

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.models.scale import scale_of

from .tools import Flow, levels, solve

NODES, SAMPLES, DISCOUNT = 40, 64, 1.15
SOLVERS = ("ipndm_3", "moment_ipndm_2", "moment_ipndm_3")
GRIDS = ("own",)


def run(model: ss.ScoreModel, z: Tensor, calls: int, grid: str, solver: str, way: str) -> Tensor:
    if way == "klub":
        at = closed(model, calls - 1)
    else:
        with solvers.counting():  # the calls of the calibration, which is made once, are its own
            nodes, costs = (klub if way.startswith("ays") else gits)(model, way)
        at = [nodes[i] for i in cheapest(costs, calls - 1, DISCOUNT if way == "gits" else 1.0)]
    return solve(model, z, solver, calls, levels=at)


def closed(model: ss.ScoreModel, steps: int) -> list[float]:
    ends, c = torch.tensor(levels(model, "tan", 1), dtype=torch.float64), scale_of(model)
    u = torch.log1p((c / ends) ** 2)
    inner = (
        c / torch.expm1(torch.lerp(u[0], u[1], torch.linspace(0, 1, steps + 1).double())).sqrt()
    )
    return [float(ends[0]), *inner[1:-1].tolist(), float(ends[1])]


@cache
def path(model: ss.ScoreModel) -> tuple[list[float], Tensor]:
    r"""Returns nodes and the states of the flow there."""

    nodes = levels(model, "log_snr", NODES)
    z = model.process.prior_sample((SAMPLES, *model.shape), seed=7)
    options = {"levels": nodes, "rtol": 1e-3, "atol": 1e-3, "path": True, "denoise": False}
    return nodes, ss.decode(model, z, **options).path


@cache
def gits(model: ss.ScoreModel, way: str) -> tuple[list[float], Tensor]:
    nodes, states = path(model)
    flow = Flow(model, "noise")
    X = torch.stack([flow.enter(x, level) for x, level in zip(states, nodes, strict=True)])
    noise = torch.stack([-flow.value(x, level) for x, level in zip(X, nodes, strict=True)])
    at = torch.tensor(nodes).to(X)
    ahead = (at[None] - at[:, None]).reshape(len(at), len(at), *(1,) * (X.ndim - 1))
    ends = torch.stack([X[i] + ahead[i] * noise[i] for i in range(len(at))])
    return nodes, (ends - X[None]).flatten(3).norm(dim=3).mean(2).double()


@cache
def klub(model: ss.ScoreModel, way: str) -> tuple[list[float], Tensor]:
    nodes, states = path(model)
    flow = Flow(model, "moments" if way == "ays moments" else "data")
    X = flow.enter(states[-1], nodes[-1])
    draw, values = torch.Generator().manual_seed(7), []
    at = torch.tensor([*nodes, 0.0], dtype=torch.float64)
    for i in reversed(range(len(nodes))):  # more and more noise
        z = torch.randn(X.shape, generator=draw, dtype=X.dtype)
        X = X + z * (at[i] ** 2 - at[i + 1] ** 2 * (i + 1 < len(nodes))).sqrt().to(X)
        values.insert(0, flow.value(X, nodes[i]))
    N = torch.stack(values)
    frame, clock = flow.problem.linear, -at[:-1].log()
    weight = (1 / (frame.variances + at[:-1, None] ** 2)).to(N)
    density = ((N[None] - N[:, None]).flatten(3).square().mean(2) * weight).sum(-1).double()
    steps = clock.diff()
    pieces = (density[:, 1:] + density[:, :-1]) / 2 * steps
    sums = torch.cat([torch.zeros(len(nodes), 1).double(), pieces.cumsum(1)], 1)
    return nodes, sums - sums.diagonal()[:, None]


def cheapest(costs: Tensor, steps: int, discount: float) -> list[int]:
    r"""Returns the nodes of the cheapest path, where costs further on count more by the discount."""

    last = len(costs) - 1
    to_go = torch.full((last + 1,), torch.inf, dtype=torch.float64)
    to_go[last], choices = 0.0, []
    upper = torch.ones_like(costs).triu(1).bool()
    allowed = torch.where(upper, costs, torch.inf)
    for _ in range(steps):
        to_go, choice = (allowed + discount * to_go).min(1)
        choices.insert(0, choice)
    nodes = [0]
    for choice in choices:
        nodes.append(int(choice[nodes[-1]]))
    return nodes


MEMBERS = {
    f"{way}: {solver}": partial(run, solver=solver, way=way)
    for way in ("ays", "ays moments", "klub", "gits")
    for solver in SOLVERS
}
