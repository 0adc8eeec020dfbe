r"""From one time of a process to another, by any solver: what all verbs are made of."""

import functools
import importlib.metadata
import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers import ODE, Brownian, SemiLinear, Solution, SolverError
from solvers.integrate import check_times, solve
from solvers.noise.brownian import VERSION

from ..models.derivative import check_derivative
from ..models.scale import ask_scale, scale_of
from ..models.score_model import ScoreModel
from ..processes.custom import NonlinearProcess
from ..processes.process import SLACK
from ..reverse.linear_part import make_noise
from ..reverse.reverse import Clock, Reverse
from .current import Run, running
from .grids import default_grid, grid_times, model_grid
from .listener import REFRESH, listener
from .noise import noise_kind, see_noise
from .options import LENGTHS, STEPS, Settings
from .progress import bar
from .watched import Watched


def transport(
    model: ScoreModel,
    x: Tensor,
    times: Tensor,
    settings: Settings,
    companion: Tensor | None = None,
) -> Solution:
    r"""Carries states from the first to the last of some times along the reverse process.

    Arguments:
        model: The score model, with its conditions bound.
        x: The states at the first time, with shape (B, *).
        times: The times, with shape (n + 1,), in float64. Under tolerances, those between are
            where the path is kept.
        settings: The options.
        companion: What a reversible solver is to go back from.
    """

    reverse, block, dtype = make_reverse(model, settings), settings.method.block, x.dtype
    x = x.double() if settings.method.exact else x  # changes of coordinates round too
    size = block or settings.batch_size or len(x)
    settings.check_batch(len(x), len(times) - 1)
    _check_resolution(x, settings, model.process.prior_std())
    if settings.grad != "none":
        check_derivative(model, x, "reverse", f"grad={settings.grad!r}", size)
    progress = bar(
        total=len(x),
        desc=str(settings.method),
        shown=settings.progress,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
    )
    parts: list[Solution] = []
    with progress:
        for first in range(0, len(x), size):
            count = min(size, len(x) - first)
            rows = torch.arange(first, first + max(count, block)).clamp(max=len(x) - 1)
            part = replace(reverse, model=model.rows(rows)) if size != len(x) else reverse
            here = rows.to(x.device)
            grid = times if times.ndim == 1 else times[:, rows]
            run = _Run(part, x[here], range(first, first + count), grid,
                       see_noise(part, x[here], rows, grid, settings),
                       None if companion is None else companion.to(x.device)[here])  # fmt: skip
            if parts and "stopped" in parts[-1].status:  # by the callback, and so for all
                parts.append(_untouched(run.x, run.times))
                continue
            try:
                parts.append(_solve(run, settings, progress))
            except SolverError as error:  # name the sample of the whole run, keep what is done
                samples = tuple(row + first for row in error.failure.samples if row < count)
                kept = [*parts, *([error.solution] if error.solution else [])]
                failure = replace(error.failure, samples=samples)
                raise SolverError(failure, Solution.stack(kept)) from None
    whole = Solution.stack(parts)
    path = whole.path if whole.path is None else whole.path.to(dtype)
    return replace(whole, x=whole.x.to(dtype), path=path, provenance=provenance(model, settings))


def _check_resolution(x: Tensor, settings: Settings, largest: float) -> None:
    r"""Refuses tolerances that the numbers of the state cannot meet, or that anything meets."""

    given = [t for t in settings.tolerances.values() if t is not None]
    if settings.atol is not None and settings.atol > largest:
        raise ValueError(
            f"atol must be at most {largest:.4g}, the deviation of the prior, but is {settings.atol:.4g}."
        )
    least = torch.finfo(x.dtype).eps / 1000  # what rounding allows, with a wide margin
    if given and max(given) < least:
        raise ValueError(
            f"rtol and atol must not both be below {least:.2g}, which {x.dtype} cannot resolve, but are "
            f"at most {max(given):.2g}; loosen one, or pass dtype=torch.float64."
        )


def make_reverse(model: ScoreModel, settings: Settings) -> Reverse:
    r"""Returns the reverse process in the form that the solver of some options wants."""

    solver, eta, noise = settings.method, _eta(settings), None
    if solver.solves is SemiLinear:
        noise = make_noise(solver.profile, eta, settings.eta_convention)
    elif settings.eta_convention != "canonical":
        raise ValueError(
            f"eta_convention={settings.eta_convention!r} is meant for semi-linear solvers, such as "
            f"'ancestral', but {solver} is none; pass the canonical eta."
        )
    return Reverse(model, solver.solves, eta, _clock(model, settings), solver.form, noise)


class _Run(NamedTuple):
    r"""Some rows that are integrated at once. The last may stand several times, to fill a block."""

    reverse: Reverse
    x: Tensor
    samples: range
    times: Tensor
    noise: Brownian | None
    companion: Tensor | None


def _solve(run: _Run, settings: Settings, progress: Any) -> Solution:
    reverse, x, samples, times, noise, companion = run
    watch = Watched(reverse.model) if settings.callback is not None else None
    reverse = reverse if watch is None else replace(reverse, model=watch)

    def finish(solution: Solution) -> Solution:
        solution = reverse.solution(solution, times)
        return solution if len(x) == len(samples) else solution.rows(torch.arange(len(samples)))

    made = Run(settings.method, None if settings.adaptive else times, reverse.eta)
    try:
        with running(made):
            solution = solve(
                reverse.problem(),
                reverse.enter(x, times[0]),
                reverse.to_clock(times),
                settings.method,
                rtol=settings.tolerances["rtol"],
                atol=settings.tolerances["atol"],
                max_step=settings.max_step,
                first_step=settings.first_step,
                noise=noise,
                path=settings.path,
                callback=listener(reverse, watch, times, samples, settings, progress),
                pause=0.0 if settings.callback else REFRESH,
                max_calls=settings.max_calls,
                on_failure=settings.on_failure,
                grad=settings.grad,
                parameters=_parameters(reverse.model) if settings.grad == "adjoint" else (),
                companion=companion,
                seam=None if noise is None else reverse.seam(times, x),
            )
    except SolverError as error:
        failure = made.blame(error.failure)
        raise SolverError(failure, error.solution and finish(error.solution)) from None
    return finish(solution)


def _untouched(x: Tensor, times: Tensor) -> Solution:
    r"""The solution of samples that were never begun."""

    none = torch.zeros(len(x), dtype=torch.int64)
    reached = times[0].expand(len(x))
    return Solution(x, times, reached, none, none, none, ("stopped",) * len(x))


def _parameters(model: ScoreModel) -> list[Tensor]:
    r"""Weights and conditions that ask for gradients."""

    given = [c for m in model.modules() for c in getattr(m, "bound", {}).values()]
    return [p for p in (*model.parameters(), *given) if p.requires_grad]


def make_times(model: ScoreModel, start: float, stop: float, settings: Settings) -> Tensor:
    r"""Returns the times of a run from `start` to `stop`, unless the settings say others."""

    process, up = model.process, start < stop
    start, stop = (
        process.check_inside("t_min" if low else "t_max", t)
        for low, t in ((up, start), (not up, stop))
    )
    ends = torch.tensor([start, stop], dtype=torch.float64)
    if start == stop:
        raise ValueError(f"t_min and t_max must differ, but both are {start:.4g}.")
    if settings.times is not None:
        times = process.inside("times", check_times(settings.times))
        low = times.min().item()
        if settings.t_min is not None and not same_time(low, settings.t_min):
            raise ValueError(
                f"t_min={settings.t_min:.9g} does not agree with the grid, which reaches down to "
                f"{low:.9g}; pass steps= or a grid of your own."
            )
        if bool(((times[-1] - times[0]) * (stop - start) < 0).any()):
            first, last = (ends.flatten()[0] for ends in (times[0], times[-1]))
            raise ValueError(
                f"times must go from {start:.4g} towards {stop:.4g}, but go from "
                f"{first:.4g} to {last:.4g}; pass times.flip(0)."
            )
        return times
    if settings.adaptive:
        kept = settings.path
        return grid_times(process, "rho", start, stop, STEPS, scale_of(model)) if kept else ends
    method = settings.method
    if method.form in ("isotropic", "floored") or getattr(method, "analytic_first", False):
        ask_scale(model, f"solver={str(method)!r} on a grid")
    grid, steps = _grid(model, settings), settings.steps or STEPS
    near = method.even or method.reversible  # whose steps must be alike
    return model_grid(model, grid, start, stop, steps, whole=near)


def same_time(one: float, other: float) -> bool:
    r"""Whether two times are the same, as far as float32 tells."""

    return math.isclose(one, other, rel_tol=SLACK)


def _grid(model: ScoreModel, settings: Settings) -> str:
    if settings.grid is not None:
        return settings.grid
    if isinstance(model.process, NonlinearProcess) or not settings.method.even:
        return default_grid(model)
    return _clock(model, settings)


def _eta(settings: Settings) -> float:
    if settings.method.solves is ODE:
        if settings.eta:
            raise ValueError(
                f"eta={settings.eta} has no effect on {settings.method}, which solves the "
                "probability flow; use a solver with noise, such as 'ancestral' or 'em'."
            )
        return 0.0
    noisy = settings.method.stochastic
    if settings.eta is not None and not settings.method.takes_eta and (noisy or settings.eta):
        cure = "its noise is set by its own settings, as in 'edm_churn:amount=20'"
        if not noisy:
            cure = "it solves the probability flow; use 'exponential_sde' under tolerances"
        raise ValueError(f"eta={settings.eta} has no effect on {settings.method}: {cure}.")
    if settings.eta is None:
        return 1.0 if settings.method.stochastic else 0.0
    return float(settings.eta)


def _clock(model: ScoreModel, settings: Settings) -> Clock:
    if settings.method.solves is SemiLinear:
        if settings.clock == "t":
            raise ValueError(
                f"clock='t' has no effect on {settings.method}: its clock is log_snr."
            )
        return "log_snr"
    if settings.clock is None and isinstance(model.process, NonlinearProcess):
        return "t"
    return settings.clock or ("log_snr" if settings.adaptive or settings.method.even else "t")


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "scoresde")}


def provenance(model: ScoreModel, settings: Settings) -> dict[str, Any]:
    r"""Returns what made a solution."""

    times = None if settings.times is None else settings.times.tolist()
    gridded = times is None and not settings.adaptive
    return {
        "solver": str(settings.method),
        "steps": (settings.steps or STEPS) if gridded else None,
        "grid": _grid(model, settings) if gridded else None,
        "times": times,
        "conditions": list(model.bound_names),
        **settings.tolerances,
        **{name: getattr(settings, name) for name in LENGTHS},
        "eta": _eta(settings),
        "eta_convention": settings.eta_convention,
        "clock": _clock(model, settings),
        "seed": settings.seed,
        "first_index": settings.first_index,
        "seeds": None if settings.seeds is None else list(settings.seeds),
        "noise": noise_kind(settings) if settings.method.stochastic or _eta(settings) else None,
        "noise_version": VERSION,
        "process": repr(model.process),
        "model": model.fingerprint or type(model).__name__,
        "versions": _versions(),
    }
