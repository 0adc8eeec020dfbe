r"""From noise to data."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from solvers import Event, Solution, Solver
from solvers.doors.values import Array, Shape, as_shape
from solvers.shapes import align

from .doors.data import as_state
from .likelihood.along import along, with_log_density
from .models.checks import check_data, check_number, check_shape, device_of, dtype_of
from .models.conditions import Condition, verb
from .models.rows_check import check_rows
from .models.scale import check_last, check_marginal, check_prior, start_of
from .models.score_model import ScoreModel
from .models.self_conditioned import first_calls, refuse_memory
from .models.spoken import as_data
from .models.steady import warn_of_randomness
from .processes.blocks.process import BlockProcess
from .reverse.amounts import Eta
from .reverse.linear_part import Convention
from .reverse.reverse import Clock
from .runs.ending import carried, denoised, reserved
from .runs.options import (
    GROUPS,
    SEED,
    Ending,
    Failures,
    Gradients,
    Levels,
    Motion,
    Options,
    Seeds,
    Start,
    Stepping,
    Times,
    Top,
    names,
)
from .runs.plan import Plan
from .runs.repeats import is_keyed, says_seed, warn_of_copies, warn_of_second_pass
from .runs.run import Run, first_time, same_time, top_of
from .runs.settings import Settings
from .runs.takes import Takes, check_model, parted, split
from .runs.way_back import as_encoded, check_origin, end_of, reversed_options

SAMPLE, DECODE = (Takes(verb, *GROUPS) for verb in ("sample", "decode"))


@verb(gives=as_data)
def sample(  # noqa: D417
    model: ScoreModel,
    shape: int | Shape,
    *,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    levels: Levels | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    eta: Eta | None = None,
    eta_convention: Convention = "canonical",
    noise: Motion | None = None,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    path: bool = False,
    callback: Callable[[Event], object] | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    denoise: bool = True,
    log_density: bool = False,
    plan: Plan | str | Path | None = None,
    **condition: Condition,
) -> Solution:
    r"""Draws samples.

    It draws the initial state from the prior, and continues as :func:`decode`.

    Arguments:
        model: The score model.
        shape: The shape (B, *), or the number B for a model that knows the shape of a sample.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings`; `plan`, a
            :class:`scoresde.Plan` or its file, may replace solver and steps.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.
        SolverError: If the run fails.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), section 4
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> ss.sample(model, 4, solver="dpmpp_2m", steps=3)
        Solution((4, 2) by dpmpp_2m, 3 intervals, 4 calls per sample)
    """

    options = SAMPLE.said(locals())
    check_model(model)
    modules = tuple(model.modules())
    home = device or device_of(modules)
    shape = check_sample_shape(model, shape, home)
    model, settings, whole = *parted(model, modules, options, shape[0], SAMPLE), model
    warn_of_copies("sample", whole, shape, options)
    process = model.process
    if settings.seeds is not None and len(settings.seeds) != shape[0]:
        settings.check_batch(shape[0], 0)
    x = process.bare_prior_sample(
        shape,
        seed=settings.keys(torch.arange(shape[0]))[0],
        first_index=settings.first_index,
        dtype=settings.dtype or dtype_of(modules),
        device=settings.device or home,
    )
    start = process.t_max
    if settings.own_times is not None or settings.sigma_max is not None:  # less noise, possibly
        x, start = _lifted(model, x, settings)
    if process.has_levels:
        check_prior(model, start)
    else:
        check_marginal(model, x)
    with settings.gradients():
        solution = _decode(model, x, start, settings)
    if not says_seed(options):
        warn_of_second_pass(x, solution, settings, drawn=True)
    return solution


def _lifted(model: ScoreModel, x: Tensor, settings: Settings) -> tuple[Tensor, float]:
    r"""Draws from the prior as noise at the first time that the user set, and the earliest such time."""

    process = model.process
    first = first_time(model, settings)
    start = first.min().item()
    if process.has_scales:
        return x * align((process.scales(first)[1] / process.prior_std()).to(x), x), start
    if isinstance(process, BlockProcess):
        return process.times(process.root(first), process.standardised(x)), start
    if not same_time(start, process.t_max):
        raise ValueError(
            f"times must start at t_max={process.t_max:.9g}, where the law is the prior, but start at "
            f"{start:.9g}; a NonlinearProcess has no noise levels in between."
        )
    return x, start


@verb(latents=("z",), gives=as_data)
def decode(  # noqa: D417
    model: ScoreModel,
    z: Array | Solution,
    *,
    t_max: float | None = None,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    levels: Levels | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    eta: Eta | None = None,
    eta_convention: Convention = "canonical",
    noise: Motion | None = None,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    path: bool = False,
    callback: Callable[[Event], object] | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    denoise: bool = True,
    log_density: bool = False,
    plan: Plan | str | Path | None = None,
    **condition: Condition,
) -> Solution:
    r"""Turns latents into data along the reverse process, which ends with one denoising.

    Arguments:
        model: The score model.
        z: Latents at `t_max`, with shape (B, *), or the solution of :func:`scoresde.encode`, whose solver, grid
            and companion are then used backwards unless you pass others.
        t_max: The time of the latents. By default, the last time of the process.
        condition: The conditions of the model. The options are those of :func:`scoresde.sample`.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.
        SolverError: If the run fails.

    Examples:
        >>> z = ss.encode(model, torch.ones(3, 2))
        >>> x = ss.decode(model, z, denoise=False).x
        >>> bool((x - 1).abs().max() < 1e-4)
        True
    """

    options = DECODE.said(locals())
    defaults: Options = {}
    known, companion = [], None
    if isinstance(z, Solution):
        check_origin(model, z, device)
        known, end = z.provenance.get("conditions", []), end_of(z)
        if t_max is not None and end is not None and t_max != end:
            raise ValueError(
                f"the latents are at t_max={end:.4g}, not at {t_max:.4g}; leave out t_max=."
            )
        options, defaults, companion = as_encoded(model, z, options)
        t_max, z = end, z.x
    z, t_max = as_state("z", z), check_number("t_max", t_max)
    model, settings = split(model, options, len(z), DECODE, **defaults)
    z = check_data(model, z, "z", settings.dtype, settings.device)
    missing = ", ".join(f"{name}=" for name in known if name not in model.bound_names)
    if missing:
        raise ValueError(
            f"the latents were encoded with {missing}, which is missing here; pass it, or decode the "
            "tensor z.x if that is intended."
        )
    t_max = top_of(model, settings, t_max)
    start = model.process.t_max if t_max is None else t_max
    if settings.own_times is not None and t_max is not None:
        for first in settings.own_times[0].flatten().tolist():
            if not same_time(first, t_max):
                raise ValueError(f"times must start at t_max={t_max:.9g}, not at {first:.9g}.")
    with settings.gradients():
        solution = _decode(model, z, start, settings, companion)
    if not says_seed(options) and is_keyed(solution):
        warn_of_copies("decode", model, z, options)
        warn_of_second_pass(z, solution, settings)
    return solution


def return_from(
    model: ScoreModel, z: Solution, options: Mapping[str, object], *, denoise: bool
) -> Solution:
    r"""Goes back from the end of :func:`scoresde.encode`, with any model of the same process.

    It uses the same solver with its steps reversed, and the remaining budget.

    Arguments:
        model: The score model, with its conditions bound or among the options.
        z: The end of the encoding.
        options: The options of the encoding.
        denoise: Whether to end with one denoising.
    """

    ours = names(Stepping, Start, Top, Ending)
    back: Options = {name: value for name, value in options.items() if name not in ours}
    if back.get("max_calls") is not None:
        back["max_calls"] = back["max_calls"] - int(z.calls.max())
    back = {**back, **reversed_options(z), "denoise": denoise}
    model, settings = split(model, back, len(z.x), DECODE)
    x, end = check_data(model, z.x, "z", settings.dtype, settings.device), end_of(z)
    start = model.process.t_max if end is None else end
    with settings.gradients():
        return _decode(model, x, start, settings, z.companion)


def _decode(
    model: ScoreModel,
    x: Tensor,
    start: float,
    settings: Settings,
    companion: Tensor | None = None,
) -> Solution:
    if companion is not None and len(companion) != len(x):
        raise ValueError(f"there are {len(x)} latents, but companions of {len(companion)}.")
    process = model.process
    stop = start_of(model, "sampling") if settings.t_min is None else settings.t_min
    if settings.own_times is not None and settings.t_min is None:
        stop = float(settings.own_times[-1].min())
    if stop >= start:
        own = "" if settings.t_min is not None else "; pass a t_min= below its default"
        raise ValueError(
            f"decoding goes from t_max down to t_min, but they are {start:.9g} and {stop:.9g}{own}."
        )
    run = Run.between(model, settings, start, stop)
    if settings.takes_apart(len(x)) or settings.adaptive or settings.log_density:
        _check(model, x, settings)
    clean, whole = settings.denoise and process.has_levels, run
    if clean and settings.t_min is None and not settings.method.can.open:
        check_last(model, run.times[-1].max().item())
    after = {"last denoising": model.cost} if clean else {}
    if settings.log_density:
        run, after["log-density"] = along(run, x)
    if settings.max_calls is not None and after:
        run = reserved(run, settings.max_calls, after)
    solution = denoised(run, x, companion) if clean else carried(run, x, companion)
    return with_log_density(whole, solution) if settings.log_density else solution


def _check(model: ScoreModel, x: Tensor, settings: Settings) -> None:
    r"""Refuses rows that depend on each other, and warns about random networks, where either matters."""

    if settings.log_density:
        refuse_memory(model, "log_density=")
    with first_calls():
        if settings.takes_apart(len(x)):
            check_rows(model, x)
        if settings.adaptive:
            use = "adaptive steps are chosen by that noise and not by their error"
            warn_of_randomness(model, x, use, settings.batch_size)


def check_sample_shape(
    model: ScoreModel, shape: int | Shape, home: torch.device | str | None
) -> tuple[int, ...]:
    r"""Returns the shape (B, *) of samples, after checking that it fits the model."""

    if isinstance(shape, int):
        if model.shape is None:
            raise ValueError("this model does not know the shape of a sample; pass (B, *).")
        return as_shape("shape", (shape, *model.shape), home)
    shape = as_shape("shape", shape, home)
    check_shape(model, shape[1:], "shape")
    return shape
