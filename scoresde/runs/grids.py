r"""Grids of times, for solvers with a fixed number of steps.

With the noise level :math:`s = \sigma / \alpha = e^{-\lambda}`, a grid is uniform in a function
of it. The first and last time are exact. Grids with numbers are named as solvers with settings are: "rho:5",
"rho:rho=5", "beta:0.6,0.6".

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
    | Beta Sampling is All You Need (Lee et al., 2024), section 3, for "beta"
    | https://arxiv.org/abs/2407.12173
"""

import difflib
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from solvers import Solver
from solvers.doors.settings import parsed
from solvers.doors.values import shown
from solvers.kept import kept

from ..doors.data import as_floats
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
NUMBERS: dict[str, dict[str, float]] = {  # of grids, with their defaults
    "rho": {"rho": RHO},
    "polyexponential": {"rho": 1.0},
    "beta": {"a": 0.6, "b": 0.6},
}
NAMES = ("t", *GRIDS, "polyexponential", "beta", "sgm_uniform")
ENDINGS = {  # of solvers' names, as interfaces write them
    "karras": "rho",
    "exponential": "log_snr",
    "polyexponential": "polyexponential",
    "beta": "beta",
}
SCALED = ("tan", "asinh", "logistic")  # which bend at the scale of the data


class Spacing(NamedTuple):
    r"""How the times of a grid are spaced.

    Arguments:
        maps: The function of the noise level that is spaced, and its inverse; `None` for time itself.
        share: The place of a time between data (0) and noise (1), from that of a uniform one; `None` for the
            same.
        open: Whether the last time is left out, since the last denoising goes on from the one before.
    """

    maps: tuple[Map, Map] | None = None
    share: Callable[[Tensor], Tensor] | None = None
    open: bool = False


def spacing(words: str) -> Spacing:
    r"""Returns the spacing of a grid from its name with numbers.

    Raises:
        ValueError: If there is no such grid, or its numbers are not positive.
    """

    name, settings = parsed(words) if isinstance(words, str) else (words, [])
    name = ENDINGS.get(name, name)
    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"grid {words!r} is unknown; {hint}the grids are {', '.join(NAMES)}.")
    known = dict(NUMBERS.get(name, {}))
    for setting in settings:
        texts = setting.key.split(",") if setting.text is None else [setting.text]
        keys = list(known)[: len(texts)] if setting.text is None else [setting.key]
        if len(keys) < len(texts) or not set(keys) <= set(known):
            takes = f"takes {', '.join(known)}" if known else "takes no numbers"
            raise ValueError(f"grid {words!r} has no {str(setting)!r}; {name} {takes}.")
        known |= {key: _positive(words, key, text) for key, text in zip(keys, texts, strict=True)}
    return _spacing(name, *known.values())


def _positive(words: str, key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{key} of grid {words!r} must be a positive number, but is {text!r}.")
    return number


def _spacing(name: str, *numbers: float) -> Spacing:
    if name == "rho":
        [rho] = numbers
        return Spacing((lambda s, c: s ** (1 / rho), lambda u, c: u**rho))
    if name == "polyexponential":
        return Spacing(GRIDS["log_snr"], lambda place: place ** numbers[0])
    if name == "beta":
        return Spacing(share=lambda place: _beta_quantile(place, *numbers))
    return Spacing(GRIDS.get(name), open=name == "sgm_uniform")


def _beta_quantile(place: Tensor, a: float, b: float) -> Tensor:
    from scipy.special import betaincinv

    return torch.as_tensor(betaincinv(a, b, place.numpy()))


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
    family = ENDINGS.get(name.partition(":")[0], name.partition(":")[0])
    if family not in (*GRIDS, "polyexponential") or steps == 1:
        return times
    top = max(model.process.bare_noise_level(t) for t in (start, stop))
    if not whole and model.data_scale is None and top > highest(model.process, UNSAID, top):
        warn(
            f"the noise levels of the grid begin at {HIGHEST * UNSAID:.4g}, below the {top:.4g} of t_max, "
            f"because the scale of the data is not known and a root mean square of {UNSAID} is assumed; "
            "set model.data_scale, or model.moments = ss.moments(data)."
        )
    elif family in SCALED:
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
    if not process.has_levels:
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
        name: "t", "log_snr", "rho" (with :math:`\rho = 7`), "tan", "asinh", "logistic", "polyexponential", "beta"
            or "sgm_uniform", possibly with numbers.
        start: The first time.
        stop: The last time, before or after it.
        steps: The number of intervals.
        scale: The root mean square of the data.
        whole: Whether levels are spaced up to that of t_max, however high.

    Raises:
        ValueError: If there is no grid with this name.
    """

    make = partial(_grid_times, process, name, start, stop, steps, scale, whole=whole)
    return kept(make, "grid", process.key, name, start, stop, steps, scale, whole).clone()


def _grid_times(
    process: Process,
    name: str,
    start: float,
    stop: float,
    steps: int,
    scale: float,
    *,
    whole: bool,
) -> Tensor:
    maps, share, is_open = (GRIDS[name], None, False) if name in GRIDS else spacing(name)
    ends = torch.tensor([start, stop], dtype=torch.float64)
    if is_open and start < stop:
        raise ValueError(f"grid {name!r} only leads to data; use another, such as 't'.")
    if maps is None:
        return _spaced(ends, steps + is_open, share)[: steps + 1]
    forward, inverse = maps
    levels = torch.exp(-process.bare_log_snr(ends))
    levels = levels if whole else levels.clamp(max=highest(process, scale, float(levels.max())))
    times = process.bare_time(-inverse(_spaced(forward(levels, scale), steps, share), scale).log())
    times[0], times[-1] = ends
    return times


def _spaced(ends: Tensor, steps: int, share: Callable[[Tensor], Tensor] | None) -> Tensor:
    place = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if share is None:
        return torch.lerp(ends[0], ends[1], place)
    falls = bool(ends[0] > ends[1])
    return torch.lerp(ends.min(), ends.max(), share(1 - place if falls else place))


def level_times(process: Process, levels: Tensor, what: str, cure: str) -> Tensor:
    r"""Returns the times of a grid of noise levels, from high to low.

    Arguments:
        process: The process.
        levels: The noise levels, in float64; all are positive.
        what: What errors say goes from one level to another.
        cure: What they say to do.

    Raises:
        ValueError: If the process does not have these noise levels.
    """

    ends = torch.tensor([process.t_max, process.t_min], dtype=torch.float64)
    most, least = torch.exp(-process.log_snr(ends)).tolist()
    first, last = levels[0].item(), levels[-1].item()
    if first > most * (1 + 1e-6) or last < least * (1 - 1e-6):
        raise ValueError(
            f"{what} from noise level {first:.4g} to {last:.4g}, but {process} has levels from "
            f"{most:.4g} to {least:.4g}; {cure}."
        )
    times = process.time(-levels.log())
    if abs(first - most) < 1e-6 * most:
        times[0] = process.t_max
    return times


def check_levels(levels: object, *, denoise: bool, name: str = "levels") -> Tensor:
    r"""Returns the noise levels of a grid, without a 0 at the end, which is the last denoising.

    Arguments:
        levels: The noise levels.
        denoise: Whether there is a last denoising.
        name: What errors call the levels.
    """

    found = as_floats(name, levels, dtype=torch.float64).detach().cpu()
    ends = found.ndim == 1 and bool(found[-1] == 0)
    kept = found[:-1] if ends else found
    if found.ndim != 1 or len(kept) < 2 or bool((kept <= 0).any() | (kept.diff() >= 0).any()):
        raise ValueError(
            f"{name} must be noise levels from high to low, at least two of them positive, of which only the "
            f"last may be 0, but are {shown(found.tolist())}."
        )
    if ends and not denoise:
        raise ValueError(
            "levels= ends in 0, which is the last denoising, so denoise=False has no effect; leave out the 0 "
            "to end at the last positive level."
        )
    return kept


def check_no_zero(levels: object, name: str = "levels") -> None:
    r"""Refuses noise levels that end in 0, for runs without a last denoising."""

    found = as_floats(name, levels, dtype=torch.float64)
    if found.ndim == 1 and bool(found[-1] == 0):
        raise ValueError(
            f"{name} must be positive, but end in 0, which is the last denoising, and there is none here; "
            "leave out the 0."
        )


def with_grid(solver: str | Solver, grid: str | None) -> tuple[str | Solver, str | None]:
    r"""Returns a solver and its grid, with which the solver's name may end, as in "DPM++ 2M Karras".

    Raises:
        ValueError: If `grid` is a different one.
    """

    grid = ENDINGS.get(grid, grid) if isinstance(grid, str) else grid
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
