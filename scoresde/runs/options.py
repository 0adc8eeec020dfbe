r"""The options of runs, in groups, which verbs take: names, kinds, defaults, and what they mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import torch
from torch import Tensor

from solvers import Brownian, Event, Solver
from solvers.doors.values import Array

from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from .plan import Plan

Times: TypeAlias = Array
Seeds: TypeAlias = Sequence[int] | np.ndarray | Tensor
Motion = Literal["increments", "path"] | Tensor | np.ndarray | Brownian
Failures = Literal["raise", "partial"]
Gradients = Literal["none", "backprop", "checkpoint", "adjoint"]


class _Unsaid(int):
    r"""A number that the user has not passed."""


SEED = _Unsaid(0)  # the seed of calls that say none


@dataclass(frozen=True, repr=False)
class Stepping:
    r"""Creates the options for where the steps of a run are.

    Arguments:
        solver: The name of a solver, or a solver. By default "dpmpp_2m", or "exponential" if there
            are tolerances; for encoding "exponential_3" if there are steps, else "exponential".
        steps: The number of intervals of the grid. By default 20, unless the solver chooses its
            own steps.
        grid: "log_snr", "rho", "tan" (that of AYS for normal data), "asinh", "logistic" or "t". By default
            "rho"; "logistic" for flows, processes of one's own, and where levels are cut; or for solvers that
            need equal steps, one that is even in their clock.
        times: An explicit grid of times of the process, with shape (n + 1,), or (n + 1, B) when
            samples have their own.
        rtol: The relative tolerance, for solvers that choose their own steps. If these get neither
            steps nor tolerances, both are 1e-5.
        atol: The absolute tolerance, in units of the state x.
        max_step: The largest step under tolerances, in log-SNR (in t for processes without), so that none leaps
            over where data comes out of noise. By default 0.23 times the order of the error's estimate, which
            is one below the solver's.
        first_step: The first step under tolerances, in log-SNR. By default, the solver chooses it.
        clock: The time that ODE and SDE solvers see: "t" or "log_snr". By default "t", but
            "log_snr" under tolerances.
    """

    solver: str | Solver | None = None
    steps: int | None = None
    grid: str | None = None
    times: Times | None = None
    rtol: float | None = None
    atol: float | None = None
    max_step: float | None = None
    first_step: float | None = None
    clock: Clock | None = None


@dataclass(frozen=True, repr=False)
class Noise:
    r"""Creates the options for how much noise a run has, and of which kind.

    Arguments:
        eta: The amount of noise: 0 is the probability flow, 1 the reverse SDE. By default 1 for
            stochastic solvers and 0 for others.
        eta_convention: What `eta` means: "canonical"; "ddim", where it scales the noise of each step,
            as in k-diffusion's ancestral samplers too; or "k_diffusion", its square, as in that
            library's SDE samplers.
        noise: "increments", keyed by the time of the step; "path", one Brownian path in log-SNR
            that is the same at any number of steps; standard normals of shape (steps, B, *); or a
            :class:`solvers.Brownian`. By default "increments", and "path" under tolerances.
    """

    eta: float | None = None
    eta_convention: Convention = "canonical"
    noise: Motion | None = None


@dataclass(frozen=True, repr=False)
class Keys:
    r"""Creates the options for what random numbers are keyed by.

    Arguments:
        seed: The seed of start, noise and probes: 0, so that equal calls draw equal samples. `None` draws one.
        seeds: One seed per sample, in place of seed and index.
        first_index: The index of the first sample: row i depends on `first_index + i` alone.
    """

    seed: int | None = SEED
    seeds: Seeds | None = None
    first_index: int = 0


@dataclass(frozen=True, repr=False)
class Numbers:
    r"""Creates the options for the dtype, device and gradients of a run.

    Arguments:
        dtype: The dtype of the state. By default that of the data, else of the network.
        device: The device of the state. By default that of the data, else of the model.
        grad: Which gradients the result carries, with respect to start, weights and conditions: "none";
            "backprop" through all steps; "checkpoint", the same in the memory of one network call, each
            being made again; or "adjoint", torchdiffeq's, for its methods.
    """

    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    grad: Gradients = "none"


@dataclass(frozen=True, repr=False)
class Limits:
    r"""Creates the options for what a run may cost, and how failures and progress are handled.

    Arguments:
        batch_size: The largest number of samples that are integrated at once.
        max_calls: The largest number of network calls of a sample.
        on_failure: "raise", or "partial" to end the samples concerned and keep what there is.
        progress: Whether to show a progress bar.
    """

    batch_size: int | None = None
    max_calls: int | None = None
    on_failure: Failures = "raise"
    progress: bool = False


@dataclass(frozen=True, repr=False)
class Watching:
    r"""Creates what is seen of a run on its way.

    Arguments:
        path: Whether to keep the states at all times of the grid.
        callback: A function that is called with the :class:`solvers.Event` of each accepted step. If it
            returns a truth value that is true, the run ends there.
    """

    path: bool = False
    callback: Callable[[Event], object] | None = None


@dataclass(frozen=True, repr=False)
class Start:
    r"""Creates the option for the time of data.

    Arguments:
        t_min: The time at which data is taken to be. By default the process's, for the use.
    """

    t_min: float | None = None


@dataclass(frozen=True, repr=False)
class Ending:
    r"""Creates the option for how a run towards data ends.

    Arguments:
        denoise: Whether decoding ends with one denoising. `denoise=False` leaves it out, for a round trip: what
            comes back then is the state :math:`\alpha x` at `t_min`.
    """

    denoise: bool = True


@dataclass(frozen=True, repr=False)
class Planned:
    r"""Creates what stands for solver and steps.

    Arguments:
        plan: A :class:`scoresde.Plan` or its file, in place of solver and steps.
    """

    plan: Plan | str | Path | None = None


GROUPS = (Stepping, Noise, Keys, Numbers, Limits, Watching, Start, Ending, Planned)


class UntimedOptions(TypedDict, total=False):
    r"""The options of a run between times that are not the caller's to choose."""

    solver: str | Solver | None
    steps: int | None
    grid: str | None
    rtol: float | None
    atol: float | None
    max_step: float | None
    first_step: float | None
    clock: Clock | None
    eta: float | None
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
    denoise: bool


class RunOptions(UntimedOptions, total=False):
    r"""All options of a run, for functions that hand them on."""

    times: Times | None
    plan: Plan | str | Path | None


Options: TypeAlias = dict[str, Any]  # options and conditions by name, which verbs check


def names(*groups: type | str) -> tuple[str, ...]:
    r"""Returns the names of the options of some groups, among which names of single ones may be."""

    found: list[str] = []
    for group in groups:
        found += [group] if isinstance(group, str) else [f.name for f in fields(group)]
    return tuple(found)


STEPPING = names(Stepping)
OPTIONS = names(*GROUPS)
