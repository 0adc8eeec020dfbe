r"""Grids of times, for solvers with a fixed number of steps.

With the noise level :math:`s = \sigma / \alpha = e^{-\lambda}`, a grid is uniform in a function
of it. The first and last time are exact.

Far above the data, D hardly depends on the state, and one step crosses any span of levels. So levels are spaced
below 160 times the scale of the data (80 for a root mean square of 0.5, as in EDM), and a first step from t_max
leads there, because the noise level of flows, and of processes that keep no signal, is unbounded. A largest
level that the user set is never cut, nor one within 4 times the limit: the first step would rely for too long on
estimates of the noise, whose errors grow with the level.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | equation (5), for "rho"
    | https://arxiv.org/abs/2206.00364
    | Align Your Steps (Sabour et al., 2024), appendix A, for "tan"
    | https://arxiv.org/abs/2404.14507
"""

import difflib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from solvers import Solver

from ..doors.warning import warn
from ..models.scale import ask_scale, scale_of
from ..models.score_model import UNSAID, ScoreModel
from ..processes.process import Process
from ..processes.schedules import invert

RHO = 7.0
HIGHEST = 160.0  # times the scale of the data, where steps of grids by noise level begin
NEAR = 4.0  # times as high: below it, an extra first step is not worthwhile
CENTRE, FLOOR = 1.25, 0.1  # of "logistic": the level of the most steps over the scale, and epsilon
Map = Callable[[Tensor, float], Tensor]


def _logistic(s: Tensor, c: float) -> Tensor:
    return s / (s + CENTRE * c) + FLOOR * s.log()


def _from_logistic(u: Tensor, c: float) -> Tensor:
    r"""The noise levels, by bisection: the first term lies in [0, 1], which brackets their logarithms."""

    ends = ((u.min().item() - 1) / FLOOR, u.max().item() / FLOOR)
    return invert(lambda v: -_logistic(v.exp(), c), -u, ends).exp()


# Each grid: a function of the noise level s and the data's standard deviation c, and its inverse.
GRIDS: dict[str, tuple[Map, Map]] = {
    "log_snr": (lambda s, c: s.log(), lambda u, c: u.exp()),
    "rho": (lambda s, c: s ** (1 / RHO), lambda u, c: u**RHO),
    "tan": (lambda s, c: torch.atan(s / c), lambda u, c: c * torch.tan(u)),
    "logistic": (_logistic, _from_logistic),
    "asinh": (lambda s, c: torch.asinh(s / c), lambda u, c: c * torch.sinh(u)),
}
NAMES = ("t", *GRIDS)
ENDINGS = {
    "karras": "rho",
    "exponential": "log_snr",
}  # of solvers' names, as interfaces write them
SCALED = ("tan", "asinh", "logistic")  # which bend at the scale of the data


def model_grid(
    model: ScoreModel, name: str, start: float, stop: float, steps: int, *, whole: bool = False
) -> Tensor:
    r"""Returns the times of :func:`grid_times` for a model, with a warning if they depend on an unknown scale.

    Arguments:
        model: The score model.
        name: The name of the grid.
        start: The first time.
        stop: The last time, before or after it.
        steps: The number of intervals.
        whole: Whether levels are spaced up to that of t_max, however high, for solvers that need equal steps.
    """

    scale = scale_of(model)
    times = grid_times(model.process, name, start, stop, steps, scale, whole=whole)
    if name not in GRIDS or steps == 1:
        return times
    top = max(model.process.bare_noise_level(t) for t in (start, stop))
    if not whole and model.data_scale is None and top > highest(model.process, UNSAID, top):
        warn(
            f"the noise levels of the grid begin at {HIGHEST * UNSAID:.4g}, below the {top:.4g} of t_max, "
            f"because the scale of the data is not known and a root mean square of {UNSAID} is assumed; "
            "set model.data_scale, or model.moments = ss.moments(data)."
        )
    elif name in SCALED:
        ask_scale(model, f"grid={name!r}")
    return times


def highest(process: Process, scale: float, top: float) -> float:
    r"""Returns the noise level below which grids are spaced, for data of the given scale.

    Arguments:
        process: The process.
        scale: The root mean square of the data.
        top: The largest noise level of the run.
    """

    if top <= NEAR * HIGHEST * scale or process.said_levels[1] is not None:
        return math.inf
    return HIGHEST * scale


def default_grid(model: ScoreModel) -> str:
    r"""Returns the name of the default grid: that of the process, or "logistic" if levels are cut."""

    process = model.process
    if not process.has_scales:
        return process.grid
    top = process.bare_noise_level(process.t_max)
    cut = top > highest(process, scale_of(model), top)
    return "logistic" if cut else process.grid


def grid_times(
    process: Process,
    name: str,
    start: float,
    stop: float,
    steps: int,
    scale: float = UNSAID,
    *,
    whole: bool = False,
) -> Tensor:
    r"""Returns the times of a grid, with shape (steps + 1,), in float64.

    Arguments:
        process: The process.
        name: "t", "log_snr", "rho" (with :math:`\rho = 7`), "tan", "asinh" or "logistic".
        start: The first time.
        stop: The last time, before or after it.
        steps: The number of intervals.
        scale: The root mean square of the data.
        whole: Whether levels are spaced up to that of t_max, however high.

    Raises:
        ValueError: If there is no grid with this name.
    """

    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"grid {name!r} is unknown; {hint}the grids are {', '.join(NAMES)}.")
    ends = torch.tensor([start, stop], dtype=torch.float64)
    if name == "t":
        return _spaced(ends, steps)
    forward, inverse = GRIDS[name]
    levels = torch.exp(-process.bare_log_snr(ends))
    levels = levels if whole else levels.clamp(max=highest(process, scale, float(levels.max())))
    times = process.bare_time(-inverse(_spaced(forward(levels, scale), steps), scale).log())
    times[0], times[-1] = ends
    return times


def _spaced(ends: Tensor, steps: int) -> Tensor:
    return torch.lerp(ends[0], ends[1], torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def with_grid(solver: str | Solver, grid: str | None) -> tuple[str | Solver, str | None]:
    r"""Returns a solver and its grid, with which the solver's name may end, as in "DPM++ 2M Karras".

    Raises:
        ValueError: If `grid` is a different one.
    """

    if not isinstance(solver, str):
        return solver, grid
    first, _, last = solver.replace("_", " ").rpartition(" ")
    named = ENDINGS.get(last.lower()) if first else None
    if named is None:
        return solver, grid
    if grid not in (None, named):
        raise ValueError(
            f"solver {solver!r} names grid={named!r}, so grid={grid!r} has no effect; pass one of the two."
        )
    return first, named
