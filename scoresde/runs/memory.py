r"""What a run that ended early needs to go on: its start, its options, and the places that its batches reached.

It consists of tensors, numbers and text, in nested tuples and mappings, so that a file can hold it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import fields

import torch
from torch import Tensor

from solvers import Solution
from solvers.control import Memory

from ..models.conditions import OUTER, leaves
from ..models.score_model import ScoreModel
from ..reverse.amounts import ByRow
from .options import Ending, Keys, Noise, Watching, names
from .plan import PROBES, describe_function
from .run import Run
from .settings import LENGTHS

KEPT = tuple(
    name
    for name in names(*LENGTHS, "clock", Noise, Keys, "batch_size", "on_failure", Watching, Ending)
    if name != "callback"
)
ELSEWHERE = ("provenance", "solver", "memory")  # what all parts of a solution share


def remember(
    run: Run, x: Tensor, companion: Tensor | None, parts: Iterable[Solution]
) -> Memory | None:
    r"""Returns what a run needs to go on, or `None` if it cannot.

    Arguments:
        run: The run.
        x: The states of all samples at its start.
        companion: Their companions there, if there are any.
        parts: The solutions of its batches, of which those that were not started come last.
    """

    settings = run.settings
    if settings.grad != "none" or settings.log_density or not settings.method.can.stepwise:
        return None
    options = {name: getattr(settings, name) for name in KEPT}
    if isinstance(settings.eta, ByRow):
        options["eta"] = torch.tensor(settings.eta.values, dtype=torch.float64)
    begun = [part for part in parts if part.memory != {}]
    return {
        "verb": OUTER.get(),
        "start": x.detach(),
        "times": run.times,
        "companion": companion,
        "conditions": digest(run.model),
        "numbers": digest_of_numbers(run.model),
        "options": {**settings.tolerances, **options},
        "parts": tuple(_part(part) for part in begun),
    }


def _part(part: Solution) -> Memory:
    r"""What one batch needs: where its loop was, or its solution if it is done."""

    own = [field.name for field in fields(part) if field.name not in ELSEWHERE]
    done = {name: getattr(part, name) for name in own} if part.memory is None else None
    return {"count": len(part), "loop": part.memory, "solution": done}


def digest(model: ScoreModel) -> str:
    r"""Returns a digest of the values of the conditions that are bound to a model and its parts."""

    hashed = hashlib.sha256()
    for part in model.modules():
        for name, value in sorted(getattr(part, "bound", {}).items()):
            for tensor in leaves(value):
                hashed.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def digest_of_numbers(model: ScoreModel) -> str:
    r"""Returns a digest of what else a model computes with: its weights, tensors of samples, functions of
    guidance, and its transform.

    Of each tensor it takes the shape and some of its numbers, which differ between any two trainings.
    """

    words = []
    for part in model.modules():
        caches = part._non_persistent_buffers_set
        kept = {name: value for name, value in part._buffers.items() if name not in caches}
        own = part.held if isinstance(part, ScoreModel) else {}
        words += [
            some_numbers(v) for v in (*part._parameters.values(), *kept.values(), *own.values())
        ]
        rule = vars(part).get("rule")
        words += (
            [describe_function(value) for value in vars(rule).values() if callable(value)]
            if rule
            else []
        )
    if model.transform is not None:
        words.append(str(model.transform.described))
        words += [some_numbers(value) for value in model.transform.tensors.values()]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def some_numbers(value: Tensor | None) -> str:
    r"""The shape and dtype of a tensor, and some of its numbers where they are at hand."""

    if value is None or value.is_meta or not value.numel():
        return "" if value is None else str(tuple(value.shape))
    flat = value.detach().flatten()
    some = torch.linspace(0, len(flat) - 1, PROBES, dtype=torch.float64).long()
    return f"{tuple(value.shape)} {value.dtype} {flat[some.to(flat.device)].double().tolist()}"
