r"""Runs that ended early go on to their end."""

import re
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from solvers import Event, Solution
from solvers.control import Memory

from ..models.checks import device_of
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.spoken import as_ended
from .bit_exact import environment
from .ending import carried, denoised, reserved
from .memory import digest, digest_of_numbers
from .options import Failures
from .run import Run
from .takes import ANYTHING, Takes, check_model, split

RESUME = Takes("resume", "batch_size", "max_calls", "on_failure", "progress", "callback",
               words="has no effect on a run that goes on, in")  # fmt: skip
ALONE = ("sample", "decode", "encode", "resume")  # verbs that are one run each
SAME = {"process": "process", "model": "model", "noise_version": "version of the noise"}


@verb(gives=as_ended)
def resume(
    model: ScoreModel,
    solution: Solution,
    *,
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    callback: Callable[[Event], object] | None = None,
    **condition: Condition,
) -> Solution:
    r"""Goes on with a run of :func:`scoresde.sample`, `decode` or `encode` that ended early.

    A run ends early if its callback returns `True`, by `max_calls`, by a failure, or by an error or an interrupt
    (Ctrl-C), at which the step that was under way is dropped. The result, with its path and the numbers of calls
    and steps, is that of the run in one piece, to the last bit. The states go on from `solution.memory`, so
    changes of `solution.x` have no effect.

    Arguments:
        model: The score model of the run.
        solution: The solution of the run so far: the result of the verb, or the attribute `solution` of the
            error or interrupt that ended it.
        batch_size: The maximum number of samples that are integrated at once, for those not yet begun. By
            default, that of the run.
        max_calls: The maximum number of network calls per sample, those already made included.
        on_failure: "raise", or "partial" to end only the samples concerned and keep all results. By default, that
            of the run.
        progress: Whether to show a progress bar.
        callback: A function as for :func:`scoresde.sample`, which is called after each further step.
        condition: The conditions of the run.

    Raises:
        ValueError, TypeError: If the run cannot go on, or the model or a condition is another one.
        SolverError: If the run fails.

    Examples:
        >>> s = ss.sample(model, 4, steps=10, seed=0, callback=lambda event: event.fraction > 0.5)
        >>> s.status[0], ss.resume(model, s).status[0]
        ('stopped', 'ok')
        >>> torch.equal(ss.resume(model, s).x, ss.sample(model, 4, steps=10, seed=0).x)
        True
    """

    options = RESUME.said(locals())
    RESUME.refuse(options)
    check_model(model)
    known = _memory_of(solution)
    x, times, companion = (known[name] for name in ("start", "times", "companion"))
    _check_device(model, x)
    begun = {**known["options"], "solver": solution.solver, "times": times}
    model, settings = split(model, {**begun, **options}, len(x), ANYTHING)
    run = Run(model, settings, times, known)
    _check_same(run, solution, known)
    up = bool((times[-1] > times[0]).any())
    end = carried if up or not (settings.denoise and model.process.has_levels) else denoised
    if settings.max_calls is not None and end is denoised:
        run = reserved(run, settings.max_calls, {"last denoising": model.cost})
    with settings.gradients():
        found = end(run, x, companion)
    made = {**found.provenance, **solution.provenance}
    made.pop("in data units", None)  # as the part was, for a model with a transform
    if up and settings.method.exact:
        made["environment"] = environment(x.device)
    return replace(found, provenance=made)


def _memory_of(solution: Solution) -> Memory:
    r"""The memory of a run, after checking that it has one and is a run of its own."""

    known, method = solution.memory, solution.solver
    if known is not None and method is not None:
        if known["verb"] not in ALONE:
            raise ValueError(
                f"this run is a part of {known['verb']}, whose other parts are not known here; call "
                f"{known['verb']} again."
            )
        return known
    if solution.ok:
        raise ValueError("this run has reached its end, so there is nothing to resume.")
    if method is not None and not method.can.stepwise:
        raise ValueError(
            f"{method} takes its steps in a loop of its own, which cannot be resumed; start again, with a "
            "native solver, such as 'dopri5', if it may have to stop."
        )
    raise ValueError(
        "this solution does not hold the memory of its run: it is a part of another solution, the run kept "
        "gradients (grad=) or had log_density=True, or all its samples reached the end or failed; start again."
    )


def _check_device(model: ScoreModel, x: Tensor) -> None:
    home = device_of(model.modules())
    if home is not None and home != x.device:
        raise ValueError(
            f"this run was on {x.device}, but the model is on {home}; move the model there, or if the run "
            f"comes from a file and was on {home}, pass device={str(home)!r} to ss.load_solution."
        )


def _check_same(run: Run, solution: Solution, known: Memory) -> None:
    r"""Refuses another model, process or condition than those of the run so far."""

    made, here = solution.provenance, run.provenance
    bound = run.model.bound_names
    missing = ", ".join(f"{name}=" for name in made["conditions"] if name not in bound)
    if missing:
        raise ValueError(
            f"the run was begun with {missing}, which is missing here; pass it again."
        )
    more = ", ".join(f"{name}=" for name in bound if name not in made["conditions"])
    if more:
        raise ValueError(f"the run was begun without {more}, which is passed here; leave it out.")
    for name in SAME:
        old, new = (re.sub(r" at 0x[0-9a-f]+", "", str(entry[name])) for entry in (made, here))
        if old != new:
            raise ValueError(
                f"the run was begun with the {SAME[name]} {old}, but here it is {new}; pass the model that "
                "began it, or start again."
            )
    if known["conditions"] != digest(run.model):
        raise ValueError(
            "the values of the conditions differ from those with which the run was begun; pass the same, or "
            "start again."
        )
    if known["numbers"] != digest_of_numbers(run.model):
        raise ValueError(
            "the weights, scales, masks or transform of the model differ from those with which the run was begun; "
            "pass the same model, or start again."
        )
