r"""Measured solvers, and DPM-Solver-v3 as published: rates from mean slopes, along the coordinate axes.

The statistics are found once per model.

References:
    | DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics (Zheng et al., 2023)
    | https://arxiv.org/abs/2310.13268
"""

import copy
from functools import cache, partial

from torch import Tensor

import scoresde as ss
import solvers

from ..distance import PROBLEMS
from .tools import solve


@cache
def with_statistics(model: ss.ScoreModel, kind: str, rates: str) -> ss.ScoreModel:
    r"""Returns a model of `benchmarks.distance`, or a copy with other statistics."""

    if (kind, rates) == ("full", "regression"):
        return model
    name = {1: "mixture" if model.shape == (32,) else "digits", 3: "trained"}[len(model.shape)]
    data, known = PROBLEMS[name][1](model), copy.copy(model)
    if kind == "diagonal":
        known.moments = ss.moments(data, kind)
    known.moments = ss.statistics(known, data, rates=rates)
    return known


def run(
    model: ss.ScoreModel,
    z: Tensor,
    calls: int,
    grid: str,
    solver: str = "measured_ipndm_2",
    kind: str = "full",
    rates: str = "regression",
) -> Tensor:
    with solvers.counting():  # the statistics are no part of the run
        known = with_statistics(model, kind, rates)
    return solve(known, z, solver, calls, grid=grid)


PUBLISHED = {"kind": "diagonal", "rates": "slope"}
MEMBERS = {
    "measured_2": partial(run, solver="measured_2"),
    "measured_ipndm_2": run,
    "measured_ipndm_3": partial(run, solver="measured_ipndm_3"),
    "dpm_v3_2": partial(run, solver="measured_2", **PUBLISHED),
    "dpm_v3_3": partial(run, solver="measured_3", **PUBLISHED),
    "dpm_v3_ipndm_2, principal axes": partial(run, rates="slope"),
}
