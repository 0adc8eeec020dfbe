r"""The options of runs, in groups: their names, types, defaults and meanings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import torch
from torch import Tensor

from solvers import Brownian, Event, Solver
from solvers.doors.values import Array

from ..reverse.amounts import Eta
from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from .plan import Plan

Times: TypeAlias = Array
Levels: TypeAlias = Array
Seeds: TypeAlias = Sequence[int] | np.ndarray | Tensor
Motion = Literal["increments", "path"] | Tensor | np.ndarray | Brownian
Failures = Literal["raise", "partial"]
Gradients = Literal["none", "backprop", "checkpoint", "adjoint"]


class _Unsaid(int):
    r"""A number that the user did not pass."""


SEED = _Unsaid(0)  # the seed of calls without one


@dataclass(frozen=True, repr=False)
class Stepping:
    r"""Creates the options for the solver and the steps of a run.

    Arguments:
        solver: A solver, or its name. By default, "dpmpp_2m", or "exponential" if tolerances are passed; for
            encoding, "exponential_3" if steps are passed, and "exponential" otherwise. For consistency models,
            "consistency".
        steps: The number of intervals of the grid. By default, 20, unless the solver chooses its own steps. For
            "consistency", the number of network calls, by default 2.
        grid: "log_snr", "rho", "tan" (that of AYS for normal data), "asinh", "logistic" or "polyexponential", by
            noise level, or "t", "beta" or "sgm_uniform", by time. Some take numbers, as in "rho:5",
            "polyexponential:1.5" and "beta:0.6,0.6"; "karras" is "rho", and "exponential" is "log_snr". By
            default, "rho"; "logistic" for flows, your own processes, and where noise levels are cut; "tan" for
            "consistency"; for solvers that need equal steps, a grid that is even in their clock.
        times: An explicit grid of times of the process, with shape (n + 1,), or (n + 1, B) for one grid per
            sample.
        levels: An explicit grid of noise levels :math:`\sigma / \alpha`, instead of `times`, always from high to
            low; runs towards noise take them from the last to the first. Towards data, the last denoising leads
            from the last positive one to 0, which may stand at the end.
        rtol: The relative tolerance, for solvers that choose their own steps. If they get neither steps nor
            tolerances, both tolerances are 1e-5.
        atol: The absolute tolerance, in units of the state x.
        max_step: The maximum adaptive step, in log-SNR (in t for processes without one), so that no step misses
            the range in which data emerges from noise. By default, 0.23 times the order of the error estimate,
            which is one below the solver's.
        first_step: The initial adaptive step, in log-SNR. By default, the solver chooses it.
        clock: The time variable of ODE and SDE solvers: "t" or "log_snr". By default, "t" on a grid and
            "log_snr" with tolerances.
    """

    solver: str | Solver | None = None
    steps: int | None = None
    grid: str | None = None
    times: Times | None = None
    levels: Levels | None = None
    rtol: float | None = None
    atol: float | None = None
    max_step: float | None = None
    first_step: float | None = None
    clock: Clock | None = None


@dataclass(frozen=True, repr=False)
class Noise:
    r"""Creates the options for the amount and kind of noise in a run.

    Arguments:
        eta: The amount of noise: 0 is the probability flow, and 1 the reverse SDE. It is a number, one number per
            sample with shape (B,), or a function from noise levels :math:`\sigma / \alpha`, in float64, to
            numbers with the same shape. By default, it is 1 for stochastic solvers and 0 for others.
        eta_convention: The meaning of `eta`: "canonical"; "ddim", where it scales the noise of each step, as
            also in k-diffusion's ancestral samplers; or "k_diffusion", the square of the canonical one, as in
            that library's SDE samplers.
        noise: "increments", keyed by the time of the step; "path", one Brownian path in log-SNR that is the same
            for any number of steps; standard normals with shape (steps, B, *); or a :class:`solvers.Brownian`.
            By default, "increments" on a grid and "path" with tolerances.
    """

    eta: Eta | None = None
    eta_convention: Convention = "canonical"
    noise: Motion | None = None


@dataclass(frozen=True, repr=False)
class Keys:
    r"""Creates the options for the keys of random numbers.

    Arguments:
        seed: The seed of the initial state, noise and probes. By default, 0, so that equal calls draw equal
            samples. `None` draws a seed.
        seeds: One seed per sample, instead of seed and index.
        first_index: The index of the first sample: row i depends on `first_index + i` alone.
    """

    seed: int | None = SEED
    seeds: Seeds | None = None
    first_index: int = 0


@dataclass(frozen=True, repr=False)
class Numbers:
    r"""Creates the options for the dtype, device and gradients of a run.

    Arguments:
        dtype: The dtype of the state. By default, that of the data, or of the network if there is no data.
        device: The device of the state. By default, that of the data, or of the model if there is no data.
        grad: The gradients of the result with respect to initial state, weights and conditions: "none";
            "backprop" through all steps; "checkpoint", the same with the memory of one network call, by
            repeating each call; or "adjoint", that of torchdiffeq, for its methods.
    """

    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    grad: Gradients = "none"


@dataclass(frozen=True, repr=False)
class Limits:
    r"""Creates the options for the cost of a run, and for its failures and progress.

    Arguments:
        batch_size: The maximum number of samples that are integrated at once.
        max_calls: The maximum number of network calls per sample.
        on_failure: "raise", or "partial" to end only the samples concerned and keep all results.
        progress: Whether to show a progress bar.
    """

    batch_size: int | None = None
    max_calls: int | None = None
    on_failure: Failures = "raise"
    progress: bool = False


@dataclass(frozen=True, repr=False)
class Watching:
    r"""Creates the options for watching a run.

    Arguments:
        path: Whether to keep the states at all grid times.
        callback: A function that is called with the :class:`solvers.Event` of each accepted step and ends the
            run by returning `True`.
    """

    path: bool = False
    callback: Callable[[Event], object] | None = None


@dataclass(frozen=True, repr=False)
class Start:
    r"""Creates the options for the time of the data.

    Arguments:
        t_min: The time assigned to the data. By default, that of the process for the use at hand.
        sigma_min: The noise level :math:`\sigma / \alpha` assigned to the data, instead of `t_min`.
    """

    t_min: float | None = None
    sigma_min: float | None = None


@dataclass(frozen=True, repr=False)
class Top:
    r"""Creates the option for the noise level of the latents.

    Arguments:
        sigma_max: The noise level :math:`\sigma / \alpha` of the latents, instead of `t_max`. Grids reach up to
            it, however high it is.
    """

    sigma_max: float | None = None


@dataclass(frozen=True, repr=False)
class Ending:
    r"""Creates the option for the end of a run towards data.

    Arguments:
        denoise: Whether decoding ends with one denoising. `denoise=False` leaves it out, for a round trip; the
            result is then the state :math:`\alpha x` at `t_min`.
    """

    denoise: bool = True


@dataclass(frozen=True, repr=False)
class LogDensity:
    r"""Creates the option for the density of samples.

    Arguments:
        log_density: Whether to return the log-density of each sample under the probability flow in the same pass,
            as `log_density` and `log_density_error` of the solution: that of the last state of the run, before
            the last denoising, in units of the data. The solver must add no noise, and start at `t_max`. With
            tolerances, the path is then known at 128 times.
    """

    log_density: bool = False


@dataclass(frozen=True, repr=False)
class Planned:
    r"""Creates the option that replaces solver and steps.

    Arguments:
        plan: A :class:`scoresde.Plan` or its file, instead of solver and steps.
    """

    plan: Plan | str | Path | None = None


GROUPS = (
    Stepping,
    Noise,
    Keys,
    Numbers,
    Limits,
    Watching,
    Start,
    Top,
    Ending,
    LogDensity,
    Planned,
)


class UntimedOptions(TypedDict, total=False):
    r"""The options of a run whose times the caller does not choose."""

    solver: str | Solver | None
    steps: int | None
    grid: str | None
    rtol: float | None
    atol: float | None
    max_step: float | None
    first_step: float | None
    clock: Clock | None
    eta: Eta | None
    eta_convention: Convention
    noise: Motion | None
    seed: int | None
    seeds: Seeds | None
    first_index: int
    dtype: torch.dtype | None
    device: torch.device | str | None
    grad: Gradients
    batch_size: int | None
    max_calls: int | None
    on_failure: Failures
    progress: bool
    path: bool
    callback: Callable[[Event], object] | None
    t_min: float | None
    sigma_min: float | None
    denoise: bool


class RunOptions(UntimedOptions, total=False):
    r"""All options of a run, for functions that pass them on."""

    times: Times | None
    levels: Levels | None
    log_density: bool
    sigma_max: float | None
    plan: Plan | str | Path | None


Options: TypeAlias = dict[str, Any]  # options and conditions by name, which verbs check


def names(*groups: type | str) -> tuple[str, ...]:
    r"""Returns the names of the options in the given groups, which may include names of single options."""

    found: list[str] = []
    for group in groups:
        found += [group] if isinstance(group, str) else [f.name for f in fields(group)]
    return tuple(found)


STEPPING = names(Stepping)
OPTIONS = names(*GROUPS)
