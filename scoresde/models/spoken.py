r"""Public functions in the user's form of the data: the transform of a model at their arguments and results."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from solvers import Solution
from solvers.errors import change_solution
from solvers.shapes import row_where

from ..processes.process import Process
from .transforms import Transform

R = TypeVar("R")
Gives: TypeAlias = Callable[[Any, Any], Any]  # as each function knows its result
_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)  # a function that has translated


class Speaker(Protocol):
    r"""A model whose data is in the form of a user."""

    transform: Transform | None
    process: Process


class Forms(NamedTuple):
    r"""The arguments and the result of a public function that are in the user's form.

    Arguments:
        data: The names of arguments that hold data.
        latents: The names of arguments that hold latents.
        functions: The names of arguments that are functions of data.
        gives: A function from the result and the model to the result in the user's form, if it changes.
    """

    data: Sequence[str]
    latents: Sequence[str]
    functions: Sequence[str]
    gives: Gives | None


def translated(
    function: Callable[..., R],
    signature: inspect.Signature,
    spoken: Forms | None,
    model: object,
    arguments: Sequence[object],
    keywords: Mapping[str, object],
) -> R:
    r"""Returns the result of a public function for a model with a transform.

    The outermost function translates; those that it calls compute with states.
    """

    if _INSIDE.get():
        return function(*arguments, **keywords)
    transform = getattr(model, "transform", None)
    if not isinstance(transform, Transform):
        raise TypeError(
            f"model.transform must be a Transform, such as ss.Standardized(mean, std), but is {transform!r}."
        )
    if spoken is None:
        raise ValueError(
            f"{function.__name__} works with states and not with the data of {transform!r}; set "
            "model.transform = None, and pass states, such as transform.inside('x', x)."
        )
    try:
        bound = signature.bind(*arguments, **keywords)
    except TypeError:  # which the function itself explains
        return function(*arguments, **keywords)
    _take(bound.arguments, transform, spoken)
    token = _INSIDE.set(True)
    try:
        found = function(*bound.args, **bound.kwargs)
    except (Exception, KeyboardInterrupt) as error:
        if spoken.gives in (as_data, as_latents, as_ended):
            change_solution(error, functools.partial(spoken.gives, model=cast(Speaker, model)))
        raise
    finally:
        _INSIDE.reset(token)
    if spoken.gives is None:
        return found
    translated: R = spoken.gives(found, model)
    return translated


def _take(given: dict[str, Any], transform: Transform, spoken: Forms) -> None:
    r"""Replaces data and latents among the arguments by states."""

    for names, change in ((spoken.data, transform.inside), (spoken.latents, transform.pack)):
        for name in names:
            value = given.get(name)
            if isinstance(value, Solution):
                path = value.path
                if path is not None:  # whose states are never data
                    flat = transform.pack(f"{name}.path", path.flatten(0, 1))
                    path = flat.unflatten(0, path.shape[:2])
                given[name] = replace(value, x=change(f"{name}.x", value.x), path=path)
            elif value is not None:
                given[name] = change(name, value)
    for name in spoken.functions:
        if given.get(name) is not None:
            given[name] = _after(transform, given[name])
    shape = given.get("shape")
    if isinstance(shape, int) and transform.shape is not None:
        given["shape"] = (shape, *transform.shape)
    elif isinstance(shape, tuple | list):
        given["shape"] = transform.inner_shape(tuple(shape))


def of_data(model: object, function: Callable[..., R]) -> Callable[..., R]:
    r"""Returns a user's function of data, such as a loss or an operator, as a function of states."""

    transform = getattr(model, "transform", None)
    if transform is None or _INSIDE.get():
        return function
    return _after(transform, function)


def _after(transform: Transform, function: Callable[..., R]) -> Callable[..., R]:
    @functools.wraps(function)
    def of_states(x: Tensor, *arguments: object, **keywords: object) -> R:
        return function(transform.outside(x), *arguments, **keywords)

    return of_states


def has_real_data(model: object) -> bool:
    r"""Returns whether the data of a model with a transform is real, with the shape of its states."""

    transform, shape = getattr(model, "transform", None), getattr(model, "shape", None)
    if not isinstance(transform, Transform) or shape is None or not transform.lossless:
        return False
    shown = transform.unpack(torch.zeros(1, *shape))
    return not shown.is_complex() and tuple(shown.shape[1:]) == tuple(shape)


def log_volume(model: object, x: Tensor) -> float:
    r"""Returns the logarithm of the volume of data per volume of its states, with shape (B, \*)."""

    transform = getattr(model, "transform", None)
    return 0.0 if transform is None else float(transform.log_volumes(x.shape[1:]).sum())


def as_data(solution: Solution, model: Speaker) -> Solution:
    r"""Returns a solution whose states are data, in the user's form; those of its path stay states.

    States that were not denoised, such as those of a run that ended early, are first divided by alpha; of states
    with velocities, the positions.
    """

    made, x, transform = solution.provenance, solution.x, model.transform
    assert transform is not None
    clean = made.get("denoise", True) or made.get("in data units", False)
    ended = torch.tensor([status == "ok" for status in solution.status])
    done = ended if clean else torch.zeros_like(ended)
    shape, process = tuple(x.shape), model.process
    whole = process.prior_shape(shape) != shape and bool(done.any())  # states would be longer
    if not (made.get("in data units") or bool(done.all()) or whole):
        left = process.leave(x, solution.reached)
        x = row_where(done, x, left) if left.shape == x.shape else left
    x = transform.outside(x)
    return _told(replace(solution, x=x, provenance={**made, "in data units": True}), transform)


def as_latents(solution: Solution, model: Speaker) -> Solution:
    r"""Returns a solution whose states are latents, in the user's form."""

    assert model.transform is not None
    return _told(replace(solution, x=model.transform.unpack(solution.x)), model.transform)


def as_ended(solution: Solution, model: Speaker) -> Solution:
    r"""Returns a solution in the user's form: latents if its times rise, and data otherwise."""

    rises = bool((solution.times[-1] > solution.times[0]).any())
    return (as_latents if rises else as_data)(solution, model)


def _told(solution: Solution, transform: Transform) -> Solution:
    r"""The solution with its path in the user's form, and the transform in its provenance."""

    path: Tensor | None = solution.path
    if path is not None:
        flat = transform.unpack(path.flatten(0, 1))
        path = flat.unflatten(0, path.shape[:2])
    parts = {name: list(shape) for name, shape in transform.parts.items()}
    made = {**solution.provenance, "transform": repr(transform)}
    if not transform.lossless and transform.shape is not None:
        made["state"] = list(transform.shape)  # which a file cannot tell from the data
    elif transform.whole and not solution.x.is_floating_point():
        made["state"] = list(transform.inner_shape(tuple(solution.x.shape))[1:])
    return replace(solution, path=path, provenance={**made, "parts": parts} if parts else made)
