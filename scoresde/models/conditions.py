r"""Conditions: their allowed forms, checked once."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

import numpy as np
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor

from .by_sample import changed, of_rows, tensors_in
from .learned import check_learned
from .spoken import Forms, Gives, has_real_data, translated

Form: TypeAlias = tuple["Condition", ...] | Mapping[str, "Condition"]
Text: TypeAlias = str | Sequence[str]
Condition: TypeAlias = float | Tensor | np.ndarray | Sequence[float] | Form | Text
Bound: TypeAlias = "Tensor | tuple[Bound, ...] | dict[str, Bound]"
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
SAID: ContextVar[frozenset[str]] = ContextVar("said", default=frozenset())  # by the call of a verb
OUTER: ContextVar[str] = ContextVar("outer", default="")  # the verb that the user called
MODELS = {"model", "models", "source", "target", "prior", "against"}  # arguments that hold models
RESERVED = {"self", "x", "z", "t"}  # names of arguments of functions that take conditions


@overload
def verb(function: Callable[P, R]) -> Callable[P, R]: ...


@overload
def verb(
    *,
    data: Sequence[str] = (),
    latents: Sequence[str] = (),
    functions: Sequence[str] = (),
    gives: Gives | None = None,
    in_data: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def verb(
    function: Callable[P, R] | None = None,
    *,
    data: Sequence[str] = (),
    latents: Sequence[str] = (),
    functions: Sequence[str] = (),
    gives: Gives | None = None,
    in_data: bool = False,
) -> object:
    r"""Returns a public function with checks, whose own keywords cannot be names of conditions.

    Arguments:
        function: The function. Without further arguments, it refuses models with a transform.
        data: The names of arguments that hold data, for models with a transform.
        latents: The names of arguments that hold latents.
        functions: The names of arguments that are functions of data.
        gives: A function from the result and the model to the result in the user's form.
        in_data: Whether the function computes with real data in the user's units, by functions that translate.
    """

    if function is None:
        spoken = None if in_data else Forms(data, latents, functions, gives)
        return lambda function: _verb(function, spoken, in_data)
    return _verb(function, None)


def _verb(function: Callable[P, R], spoken: Forms | None, in_data: bool = False) -> Callable[P, R]:
    signature = inspect.signature(function)
    RESERVED.update(p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD)
    inner = checked(function)
    places = [(i, n) for i, n in enumerate(signature.parameters) if n in MODELS]
    place, name = places[0]

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        token, outer = SAID.set(frozenset(keywords)), OUTER.set(OUTER.get() or function.__name__)
        try:
            for where, what in places:
                held = arguments[where] if where < len(arguments) else keywords.get(what)
                for one in _several(held):
                    check_learned(one, function.__name__)
            model = arguments[place] if place < len(arguments) else keywords.get(name)
            if hasattr(type(model), "answers"):  # a model of another kind
                answer = _answer(type(model), function.__name__)
                return cast(R, answer(*arguments, **keywords))
            model = _several(model)[0] if _several(model) else model
            if getattr(model, "transform", None) is None or (in_data and has_real_data(model)):
                return inner(*arguments, **keywords)
            return translated(inner, signature, spoken, model, arguments, keywords)
        finally:
            SAID.reset(token)
            OUTER.reset(outer)

    return call


def _answer(kind: Any, name: str) -> Callable[..., object]:
    r"""The function by which models of another kind than score models answer a verb."""

    if name not in kind.answers:
        raise TypeError(f"{name} has no meaning for a {kind.__name__}{kind.meant_for}.")
    return cast(Callable[..., object], kind.answers[name])


def _several(held: object) -> list[object]:
    r"""The models of an argument, which may hold several."""

    held = held.values() if isinstance(held, Mapping) else held
    return list(held) if isinstance(held, list | tuple | ValuesView) else [held]


ELSEWHERE = {  # other libraries' names, and ours
    **dict.fromkeys(("num_inference_steps", "num_steps", "n_steps", "num_sampling_steps"), "steps="),
    **dict.fromkeys(("sampler", "scheduler", "sampler_name", "sampling_method"), "solver="),
    **dict.fromkeys(("timesteps", "ts"), "times="),
    **dict.fromkeys(("sigmas", "noise_levels"), "levels="),
    **dict.fromkeys(("num_samples", "n_samples", "num_images_per_prompt"), "shape=, the number of samples,"),
    **dict.fromkeys(("guidance_scale", "cfg_scale", "guidance", "cfg", "unconditional_guidance_scale"),
                    "the model ss.classifier_free(model, scale, label=...)"),
    **dict.fromkeys(("negative_prompt", "uncond"), "negative= of ss.classifier_free"),
    **dict.fromkeys(("generator", "random_state"), "seed="),
    **dict.fromkeys(("disable", "verbose", "disable_tqdm"), "progress="),
    **dict.fromkeys(("churn", "s_churn"), "solver='edm_churn:amount=20'"),
    **dict.fromkeys(("temperature", "noise_scale"), "eta="),
}  # fmt: skip


class Conditioned(Protocol):
    r"""An object that takes conditions, with the names that it accepts and those that are already bound."""

    bound_names: tuple[str, ...]

    @property
    def accepts(self) -> tuple[str, ...]:
        r"""The names of all conditions that may be given."""

    def take_condition(self, name: str, value: object) -> Bound:
        r"""Returns a value as tensors with leading size B or 1, or mappings and tuples of them."""

    def check_condition(self, name: str, value: Tensor) -> None:
        r"""Refuses a value that the object does not know."""


def leaves(value: Bound) -> list[Tensor]:
    r"""Returns the tensors of a condition."""

    return [leaf for _, leaf in tensors_in("", value)]


def rows_of(condition: Mapping[str, T], index: Tensor) -> dict[str, T]:
    r"""Returns conditions for some rows; those with leading size 1 are shared."""

    return {name: changed(value, of_rows(index)) for name, value in condition.items()}


def spread(condition: Mapping[str, Bound], x: Tensor) -> dict[str, Bound]:
    r"""Returns conditions expanded to leading size B, on the device of a state."""

    found = {}
    for name, given in condition.items():
        for value in leaves(given):
            if len(value) not in (1, len(x)):
                raise ValueError(
                    f"{name} must have leading size {len(x)} or 1, but has {len(value)}."
                )
        found[name] = changed(given, lambda v: v.to(x.device).expand(len(x), *v.shape[1:]))
    return found


def as_bound(name: str, value: object, door: Callable[[str, object], Tensor] = as_tensor) -> Bound:
    r"""Returns a condition with its parts checked; mappings, and tuples of other things than numbers, stay."""

    if isinstance(value, Mapping):
        return {str(key): as_bound(f"{name}[{key!r}]", one, door) for key, one in value.items()}
    if isinstance(value, tuple) and not all(map(_is_number, value)):
        return tuple(as_bound(f"{name}[{i}]", one, door) for i, one in enumerate(value))
    return door(name, value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) or getattr(value, "ndim", None) == 0


def floats_like(condition: Mapping[str, object], x: Tensor) -> dict[str, Bound]:
    r"""Returns conditions whose floating-point numbers have the dtype of a state."""

    def like(name: str, given: object) -> Tensor:
        value = as_tensor(name, given)
        value = value.expand(len(x)) if value.ndim == 0 else value
        return value.to(x.dtype) if value.is_floating_point() else value

    return {name: as_bound(name, value, like) for name, value in condition.items()}


@overload
def as_condition(name: str, value: Tensor) -> Tensor: ...


@overload
def as_condition(name: str, value: object) -> Bound: ...


def as_condition(name: str, value: object) -> Bound:
    r"""Returns per-sample values with leading size B or 1; a number applies to all samples."""

    bound = as_bound(name, value, _checked)
    if not leaves(bound):
        raise ValueError(f"{name} must not be empty, but is {value!r}.")
    return bound


def _checked(name: str, value: object) -> Tensor:
    tensor = as_tensor(name, value)
    tensor = tensor[None] if tensor.ndim == 0 else tensor
    if not tensor.numel():
        raise ValueError(f"{name} must not be empty, but has shape {tuple(tensor.shape)}.")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, but has NaN or infinite entries.")
    return tensor


def as_conditions(given: Mapping[str, object]) -> dict[str, Tensor]:
    r"""Returns per-sample values by name, each a tensor with leading size B or 1."""

    return {name: _checked(name, value) for name, value in given.items()}


def check_conditions(
    model: Conditioned,
    condition: Mapping[str, object],
    batch: int | None,
    options: Iterable[str] = (),
) -> dict[str, Bound]:
    r"""Returns the conditions as tensors, or as mappings and tuples of tensors.

    Arguments:
        model: The model that receives them.
        condition: The conditions: numbers; tensors, arrays or lists with leading size B or 1; or mappings or
            tuples of these.
        batch: The size B, if known.
        options: The names of options, to suggest for a mistyped one.

    Raises:
        TypeError: If the model does not take a condition with this name, or it does not hold numbers.
        ValueError: If a leading size is neither B nor 1, or a value is not finite.
    """

    found: dict[str, Bound] = {}
    for name, value in condition.items():
        if name in model.bound_names:
            raise TypeError(f"{name}= is already bound to the model; leave it out.")
        if name not in model.accepts:
            near = difflib.get_close_matches(name, [*model.accepts, *options], n=1)
            takes = ", ".join(model.accepts) or "none"
            meant = ELSEWHERE.get(name, f"{near[0]}=" if near else "")
            hint = f"did you mean {meant}? " if meant else ""
            raise TypeError(f"{name}= is neither an option nor a condition; {hint}the model takes the "
                            f"conditions: {takes}.")  # fmt: skip
        found[name] = model.take_condition(name, value)
        for tensor in leaves(found[name]):
            if batch is not None and len(tensor) not in (1, batch):
                raise ValueError(
                    f"{name} must have leading size {batch} or 1, but has shape {tuple(tensor.shape)}."
                )
        model.check_condition(name, cast(Tensor, found[name]))  # as models that check theirs say
    return found


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    r"""Returns the names of conditions, after checking that they are valid and unreserved keywords."""

    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(
            f"conditions must be a list of names, but is {names!r}; write [{names!r}]."
        )
    known = tuple(names)
    for name in known:
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"conditions must be names of keywords, but one is {name!r}.")
        if name in RESERVED:
            raise ValueError(
                f"a condition cannot be called {name!r}, which is an option or argument here; wrap the network in "
                f"a function that takes it under another name."
            )
    if len(set(known)) < len(known):
        raise ValueError(f"conditions must differ, but are {', '.join(known)}.")
    return known
