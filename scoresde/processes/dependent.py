r"""Processes of any drift: their conditions for each row, the mean of their prior, and their reverse drift."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from solvers.doors.values import as_number, as_tensor, is_number
from solvers.shapes import align

from .process import Process

Mean: TypeAlias = float | Tensor | Callable[..., Tensor]
P = TypeVar("P", bound=Process)


def taken(process: P, condition: Mapping[str, object]) -> P:
    r"""Returns a process with those of the conditions bound that it takes."""

    mine: dict[str, Tensor] = {}
    for name, value in condition.items():
        if name not in process.conditions:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} is a condition of the process, so it must be one tensor, but is a "
                f"{type(value).__name__}; give each of its tensors a name in conditions=."
            )
        mine[name] = value
    return _with(process, {**process.bound, **mine}) if mine else process


def rows_of(process: P, index: Tensor) -> P:
    r"""Returns a process for some rows of its conditions; those with leading size 1 are shared."""

    if all(len(value) == 1 for value in process.bound.values()):
        return process
    some = {
        name: value if len(value) == 1 else value[index.to(value.device)]
        for name, value in process.bound.items()
    }
    return _with(process, some)


def check_given(process: Process) -> None:
    r"""Refuses a process some of whose conditions are not bound."""

    missing = [name for name in process.conditions if name not in process.bound]
    if missing:
        names = ", ".join(f"{name}=" for name in missing)
        raise ValueError(
            f"the drift and the prior of {process} take {names}, which is missing: pass it, or give it to the "
            f"model, as in model.given({missing[0]}=...)."
        )


def for_rows(process: Process, x: Tensor) -> dict[str, Tensor]:
    r"""Returns the conditions for a state, each with leading size B, in its dtype if they are real numbers."""

    check_given(process)
    found = {}
    for name, value in process.bound.items():
        if len(value) not in (1, len(x)):
            raise ValueError(f"{name} must have leading size {len(x)} or 1, but has {len(value)}.")
        value = value.to(x) if value.is_floating_point() else value.to(x.device)
        found[name] = value.expand(len(x), *value.shape[1:])
    return found


def as_mean(mean: Mean) -> Mean:
    r"""Returns the mean of a prior as a number or a function of the conditions."""

    if callable(mean) and not isinstance(mean, Tensor):
        return mean
    if is_number(mean):
        return float(as_number("mean", mean))  # type: ignore[arg-type]
    known = as_tensor("mean", mean)
    if not known.is_floating_point() or not bool(known.isfinite().all()):
        raise ValueError("mean must hold finite floating-point numbers.")

    def constant(**condition: Tensor) -> Tensor:
        return known[None]

    return constant


def placed(process: Process, mean: Mean, z: Tensor) -> Tensor:
    r"""Returns the mean of the prior for states z, with shape () or one that expands to (B, *)."""

    if not callable(mean):
        return torch.as_tensor(mean).to(z)
    found = mean(**for_rows(process, z))
    if not isinstance(found, Tensor):
        raise TypeError(f"mean must return a tensor, but returned a {type(found).__name__}.")
    if found.shape not in (z.shape, (1, *z.shape[1:])):
        raise ValueError(
            f"mean must be of the shape of a sample, {tuple(z.shape[1:])}, or return means of the shape "
            f"{tuple(z.shape)}, but gives {tuple(found.shape)}."
        )
    return found.to(z)


def reverse_drift(
    process: Process, x: Tensor, t: Tensor, score: Tensor, eta: float | Tensor = 0.0
) -> Tensor:
    r"""Returns :math:`f(x, t) - \frac{1 + \eta^2}{2} g^2 \nabla \log p_t(x)`, with shape (B, *).

    Arguments:
        process: The process.
        x: The state, with shape (B, *).
        t: The time, with shape () or (B,).
        score: The score, with shape (B, *).
        eta: The amount of noise: 0 for the probability flow.
    """

    pull = (1 + eta**2) / 2 * process.diffusion(t.double()) ** 2
    return process.drift(x, align(t.to(x), x)) - align(pull.to(x), x) * score


def _with(process: P, bound: Mapping[str, Tensor]) -> P:
    found = copy(process)
    object.__setattr__(found, "bound", dict(bound))
    return found
