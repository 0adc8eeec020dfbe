r"""A run: everything that is decided before its first step."""

import functools
import importlib.metadata
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from solvers import ODE, SemiLinear, Solver
from solvers.catalogue import label
from solvers.control import Memory
from solvers.integrate import check_times
from solvers.methods.exponential import ExponentialMultistep
from solvers.noise.brownian import VERSION

from ..doors.warning import warn
from ..models.checks import check_number
from ..models.learned import check_solver
from ..models.scale import ask_scale, scale_of
from ..models.score_model import ScoreModel
from ..processes.blocks.process import BlockProcess
from ..processes.domain import SLACK
from ..reverse.amounts import Amount, ByRow, told_amount
from ..reverse.problems import reverse_of
from ..reverse.reverse import Clock, Reverse, check_has_levels
from .grids import default_grid, grid_times, level_times, model_grid
from .noise import noise_kind
from .options import Options
from .settings import LENGTHS, STEPS, Settings

COVERED = 5.0  # times the size of the data: at higher noise levels, it might as well be Gaussian
OPEN = "tan"  # the grid of solvers whose last step is the last denoising: of two, at the scale of the data


@dataclass(frozen=True, eq=False)
class Run:
    r"""Creates a run, for any states.

    Arguments:
        model: The score model, with its conditions bound.
        settings: The options.
        times: The times of the process from the first to the last, with shape (n + 1,), or (n + 1, B), in
            float64. With tolerances, the times in between are those at which the path is kept.
        memory: The memory of a run that ended early, if this one goes on from there.
    """

    model: ScoreModel
    settings: Settings
    times: Tensor
    memory: Memory | None = None

    def __post_init__(self) -> None:
        method, eta = self.settings.method, self.settings.eta
        check_solver(self.model, method.name, noisy=method.stochastic or bool(eta))
        plain = isinstance(method, ExponentialMultistep) and not method.additions
        if isinstance(self.model.process, BlockProcess) and method.can.solves is SemiLinear:
            if not plain or method.analytic_first:  # type: ignore[attr-defined]
                raise ValueError(
                    f"{method} is for processes with numbers alpha and sigma, not for {self.model.process}; use "
                    "an exponential multistep method, such as 'exponential_2', 'dpmpp_2m' or 'unipc', or a "
                    "general solver, such as 'dopri5', 'heun', 'em' or one of torchdiffeq or torchsde."
                )

    @staticmethod
    def between(model: ScoreModel, settings: Settings, start: float, stop: float) -> "Run":
        r"""Returns the run from one time to another, unless the options set other times."""

        times, eta = make_times(model, start, stop, settings), settings.eta
        if isinstance(eta, ByRow) and times.ndim == 1:
            times = times[:, None].expand(-1, len(eta.values))
        _warn_of_guess(model, settings.method, times[0])
        return Run(model, settings, times)

    @property
    def grid(self) -> Tensor | None:
        r"""The times of the steps, or `None` if the solver chooses them."""

        return None if self.settings.adaptive else self.times

    @cached_property
    def eta(self) -> Amount:
        r"""The amount of noise."""

        method, can = self.settings.method, self.settings.method.can
        eta = cast(Amount | None, self.settings.eta)
        if can.solves is ODE:
            if eta:
                raise ValueError(
                    f"eta={told_amount(eta)} has no effect on {method}, which solves the probability flow; "
                    "use a solver with noise, such as 'ancestral' or 'em'."
                )
            return 0.0
        if eta is None:
            return 1.0 if can.stochastic else 0.0
        if not can.takes_eta and (can.stochastic or eta):
            cure = "its noise is set by its own settings, as in 'edm_churn:amount=20'"
            if not can.stochastic:
                cure = "it solves the probability flow; use 'exponential_sde' under tolerances"
            raise ValueError(f"eta={told_amount(eta)} has no effect on {method}: {cure}.")
        if callable(eta):
            check_has_levels(self.model, eta)
        return eta

    @cached_property
    def clock(self) -> Clock:
        r"""The time variable of the solver."""

        return _clock(self.model, self.settings)

    @cached_property
    def reverse(self) -> Reverse:
        r"""The reverse process in the form that the solver needs."""

        solver, convention = self.settings.method, self.settings.eta_convention
        can = solver.can
        if can.solves is not SemiLinear and convention != "canonical":
            raise ValueError(
                f"eta_convention={convention!r} is meant for semi-linear solvers, such as 'ancestral', "
                f"but {solver} is not one; pass the canonical eta."
            )
        return reverse_of(
            self.model, can.solves, self.eta, self.clock, can.form, can.profile, convention
        )

    @property
    def provenance(self) -> dict[str, object]:
        r"""A record of how the solution was made, as plain data."""

        settings, model = self.settings, self.model
        times = None if settings.own_times is None else settings.own_times.tolist()
        gridded = times is None and not settings.adaptive
        noisy = settings.method.can.stochastic or self.eta
        return {
            "solver": label(settings.method),
            "steps": settings.count if gridded else None,
            "grid": _grid(model, settings) if gridded else None,
            "times": times,
            "denoise": settings.denoise,
            "conditions": list(model.bound_names),
            **settings.tolerances,
            **{name: getattr(settings, name) for name in LENGTHS},
            "eta": told_amount(self.eta),
            "eta_convention": settings.eta_convention,
            "clock": self.clock,
            "seed": settings.seed,
            "first_index": settings.first_index,
            "seeds": None if settings.seeds is None else list(settings.seeds),
            "noise": noise_kind(settings) if noisy else None,
            "noise_version": VERSION,
            "process": repr(model.process),
            "model": model.fingerprint or type(model).__name__,
            "versions": versions(),
        }


def in_times(model: ScoreModel, settings: Settings, *, up: bool) -> Settings:
    r"""Returns options whose grid and noise level of the data are times of the model's process.

    Arguments:
        model: The model.
        settings: The options.
        up: Whether the run goes from data to noise.
    """

    if isinstance(settings.levels, Tensor):
        times = level_times(
            model.process, settings.levels, "levels go", "pass levels within these"
        )
        if up:
            return replace(settings, times=times.flip(0), t_min=float(times[-1]), levels=None)
        return replace(settings, times=times, levels=None)
    if settings.sigma_min is None:
        return settings
    low, high = settings.sigma_min, settings.sigma_max
    if high is not None and not low < high:
        raise ValueError(f"sigma_max must be above sigma_min, but they are {high:g} and {low:g}.")
    t_min = time_of(model, "sigma_min", low)
    return replace(settings, t_min=t_min, sigma_min=None)


def time_of(model: ScoreModel, name: str, level: float) -> float:
    r"""Returns the time of a noise level, which errors call by a name."""

    process = model.process
    ends = process.noise_level(process.t_min), process.noise_level(process.t_max)
    low, high = ends[0] * (1 - 1e-6), ends[1] * (1 + 1e-6)
    if not low <= level <= high:
        raise ValueError(
            f"{name} must be a noise level of {process}, from {ends[0]:.4g} to {ends[1]:.4g}, but is "
            f"{level:.4g}."
        )
    near = abs(level - ends[1]) <= 1e-6 * ends[1]
    return process.t_max if near else process.at_noise_level(level)


def top_of(model: ScoreModel, settings: Settings, t_max: float | None) -> float | None:
    r"""Returns the time of the latents, if `t_max` or the options set it."""

    if settings.sigma_max is None:
        return t_max
    if t_max is not None:
        raise ValueError("sigma_max= has no effect with t_max=; pass one of the two.")
    return time_of(model, "sigma_max", settings.sigma_max)


def with_t_min(model: ScoreModel, options: Options) -> Options:
    r"""Returns options in which `t_min` says the noise level of the data, unless they have a grid of their own."""

    level = check_number("sigma_min", options.get("sigma_min"), 0)
    if level is None or not {"times", "levels"}.isdisjoint(options):
        return {**options}
    if options.get("t_min") is not None:
        raise ValueError("t_min= has no effect with sigma_min=; pass one of the two.")
    others = {name: value for name, value in options.items() if name != "sigma_min"}
    return {**others, "t_min": time_of(model, "sigma_min", level)}


def first_time(model: ScoreModel, settings: Settings) -> Tensor:
    r"""Returns the first time of a run whose options set it, with shape (), or (B,) for a grid per sample."""

    if settings.sigma_max is not None:
        return torch.tensor(time_of(model, "sigma_max", settings.sigma_max), dtype=torch.float64)
    return make_times(model, model.process.t_max, model.process.t_min, settings)[0]


def make_times(model: ScoreModel, start: float, stop: float, settings: Settings) -> Tensor:
    r"""Returns the times of a run from `start` to `stop`, unless the settings have their own."""

    process, up = model.process, start < stop
    ours, theirs = ("t_min", "t_max") if up else ("t_max", "t_min")
    start, stop = process.check_inside(ours, start), process.check_inside(theirs, stop)
    if start == stop:
        raise ValueError(f"t_min and t_max must differ, but both are {start:.4g}.")
    if settings.own_times is not None:
        times = process.inside("times", check_times(settings.own_times))
        low = times.min().item()
        if settings.t_min is not None and not same_time(low, settings.t_min):
            raise ValueError(
                f"t_min={settings.t_min:.9g} does not agree with the grid, which reaches down to "
                f"{low:.9g}; pass steps= or your own grid."
            )
        if bool(((times[-1] - times[0]) * (stop - start) < 0).any()):
            first, last = (ends.flatten()[0] for ends in (times[0], times[-1]))
            raise ValueError(
                f"times must go from {start:.4g} towards {stop:.4g}, but go from "
                f"{first:.4g} to {last:.4g}; pass times.flip(0)."
            )
        return times
    if settings.adaptive:
        if settings.path:
            return grid_times(process, "rho", start, stop, STEPS, scale_of(model))
        return torch.tensor([start, stop], dtype=torch.float64)
    method, can = settings.method, settings.method.can
    if can.form in ("isotropic", "floored") or getattr(method, "analytic_first", False):
        ask_scale(model, f"solver={str(method)!r} on a grid")
    grid, steps = _grid(model, settings), settings.count
    whole = (
        can.even or can.reversible or settings.sigma_max is not None
    )  # steps that must be alike
    times = model_grid(model, grid, start, stop, steps, whole=whole)
    open_end = can.open and settings.denoise and process.has_levels and not up
    return times[:-1] if open_end else times  # the last denoising goes on from the one before


def _warn_of_guess(model: ScoreModel, method: Solver, first: Tensor) -> None:
    r"""Warns if the first value of a solver is that of Gaussian data where the data shows through the noise."""

    if not getattr(method, "analytic_first", False) or model.data_scale is None:
        return
    level = float(torch.exp(-model.process.bare_log_snr(first)).min())
    if level < COVERED * model.data_scale:
        warn(
            f"{method} assumes Gaussian data in its first step, which starts at the noise level {level:.3g} "
            f"here, not far above the size {model.data_scale:.3g} of the data; use one that calls the network "
            "there, such as 'moment_ipndm_3'."
        )


def same_time(one: float, other: float) -> bool:
    r"""Whether two times are equal to the precision of float32."""

    return math.isclose(one, other, rel_tol=SLACK)


def _grid(model: ScoreModel, settings: Settings) -> str:
    can = settings.method.can
    if settings.grid is not None:
        return settings.grid
    if not model.process.has_levels or not (can.even or can.open):
        return default_grid(model)
    return _clock(model, settings) if can.even else OPEN


def _clock(model: ScoreModel, settings: Settings) -> Clock:
    can = settings.method.can
    if can.solves is SemiLinear:
        if settings.clock == "t":
            raise ValueError(
                f"clock='t' has no effect on {settings.method}: its clock is log_snr."
            )
        return "log_snr"
    if settings.clock is None and not model.process.has_levels:
        return "t"
    return settings.clock or ("log_snr" if settings.adaptive or can.even else "t")


@functools.cache
def versions() -> dict[str, str]:
    r"""Returns the versions of the libraries on which the bits of a run depend."""

    return {name: importlib.metadata.version(name) for name in ("torch", "scoresde")}
