r"""Encoding of data to latents."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from solvers import Event, Solution, Solver

from ..doors.data import as_state, with_origin
from ..doors.warning import warn
from ..models.checks import check_data, check_number, is_whole
from ..models.conditions import Condition, verb
from ..models.rows_check import check_rows
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.self_conditioned import refuse_memory
from ..models.spoken import as_latents
from ..models.steady import check_steady
from ..models.transforms import Data
from ..reverse.reverse import Clock
from ..runs.bit_exact import environment, settle
from ..runs.ending import carried
from ..runs.options import (
    Failures,
    Gradients,
    Levels,
    Limits,
    Numbers,
    RunOptions,
    Start,
    Stepping,
    Times,
    Top,
    Watching,
)
from ..runs.run import Run, same_time, top_of
from ..runs.settings import Settings, refuse_noise
from ..runs.takes import Takes, split, suited

ENCODE = Takes(
    "encode, which follows the probability flow",
    Stepping,
    Numbers,
    Limits,
    Watching,
    Start,
    Top,
    up=True,
)
LARGE = 2.0  # times the prior
DEFAULTS: RunOptions = {"solver": "exponential", "rtol": 1e-5, "atol": 1e-5}


@verb(data=("x",), gives=as_latents)
def encode(  # noqa: D417
    model: ScoreModel,
    x: Data,
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
    **condition: Condition,
) -> Solution:
    r"""Turns data into latents, which :func:`scoresde.decode` turns back into data.

    Data enters as the state :math:`\alpha x` at `t_min`, and follows the probability flow. For a process without
    scales, it is itself the state there. For a process with velocities, those of the i-th row are drawn from their
    prior and depend on i alone; pass whole states, with shape (B, 2 d, *), to set them.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *), or the solution of a run that ended in data, such as an edit, which
            `provenance["origin"]` then keeps.
        t_max: The time of the latents. By default, the last time of the process.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` for a run
            without noise. The default solver is "exponential" with tolerances of 1e-5, or "exponential_3" if
            `steps` is passed; for a process without scales, these are "dopri5" and "rk4".

    Returns:
        The solution, whose `x` holds the latents.

    Raises:
        ValueError, TypeError: If an option or condition is invalid, such as a stochastic solver.
        SolverError: If the run fails.

    References:
        | Score-Based Generative Modeling through SDEs (Song et al., 2021), section 4.3
        | https://arxiv.org/abs/2011.13456

    Examples:
        >>> z = ss.encode(model, torch.ones(1, 2))
        >>> round(float(z.x[0, 0] / model.process.t_max), 2)  # 1 / 0.5
        2.0
    """

    options = ENCODE.said(locals())
    clipping = [name for name in options if "clip" in name or "threshold" in name]
    if clipping:
        raise ValueError(
            f"{clipping[0]}= has no effect on encode, since a clipped flow cannot be undone; leave it "
            "out, and clamp the data after decoding."
        )
    if options.get("plan") is not None:
        raise ValueError("plan= is for sampling and decoding; pass solver= and steps= to encode.")
    given, x, t_max = x, as_state("x", x), check_number("t_max", t_max)
    defaults = suited(model, DEFAULTS, options)
    model, settings = split(model, options, len(x), ENCODE, **defaults)
    refuse_noise(settings)
    refuse_memory(model, "encode")
    x = check_data(model, x, "x", settings.dtype, settings.device)
    t_max = top_of(model, settings, t_max)
    start = start_of(model, "encoding") if settings.t_min is None else settings.t_min
    stop = model.process.t_max if t_max is None else t_max
    if start >= stop:
        raise ValueError(
            f"encoding goes from t_min up to t_max, but they are {start:.4g} and {stop:.4g}."
        )
    run = Run.between(model, settings, start, stop)
    for last in run.times[-1].flatten().tolist():
        if t_max is not None and not same_time(last, t_max):
            raise ValueError(f"times must end at t_max={t_max:.9g}, but end at {last:.9g}.")
    u = model.process.enter(x, run.times[0], whole=is_whole(model, x))
    check_way(model, u, settings, "the way to latents and back")
    run = settle(run, u)
    with settings.gradients():
        z = carried(run, u)
    _warn_of_growth(model, z, settings)
    z = with_origin(z, given)
    if run.settings.method.exact:
        return replace(z, provenance={**z.provenance, "environment": environment(x.device)})
    return z


def check_way(model: ScoreModel, x: Tensor, settings: Settings, use: str) -> None:
    r"""Refuses a model that is random, or whose rows depend on each other.

    Arguments:
        model: The model, with its conditions bound.
        x: Data, with shape (B, *).
        settings: The options.
        use: The result that is then undefined, in words.
    """

    if settings.takes_apart(len(x)):
        check_rows(model, x)
    check_steady(model, x, use, settings.batch_size)


def _warn_of_growth(model: ScoreModel, z: Solution, settings: Settings) -> None:
    r"""Warns about latents, from methods for inversion, that are far larger than the prior."""

    solver, last = settings.method, float(z.times[-1].max())
    special = solver.reversible or solver.undone_by is not solver
    if not special or not math.isclose(last, model.process.t_max, rel_tol=1e-6):
        return
    latents = model.process.standardised(z.x.detach())
    size = latents.flatten(1).square().mean(1).sqrt().nanmedian().item()
    if not size < LARGE:
        warn(
            f"the latents are {size:.3g} times as large as the prior: either the data is unlike that of "
            f"the model, or {solver} amplifies its own errors, as 'bdia', 'edict' and fixed-point "
            "iterations do; use another solver."
        )
