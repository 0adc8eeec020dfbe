r"""Gradients of what users ask for, each row by itself."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..classifiers import Classifier
from ..process import Process


def row_gradient(
    name: str, function: Callable[..., Tensor], x: Tensor, *times: Tensor, **data: Tensor
) -> Tensor:
    r"""Returns the gradient of a function of rows with respect to them, with shape (B, \*).

    Arguments:
        name: What errors call the function.
        function: The function, which returns one number per row, with shape (B,).
        x: Where, with shape (B, \*).
        times: What it takes after `x`.
        data: What it takes by name.
    """

    check_gradients()
    for key, value in data.items():
        if len(value) not in (1, len(x)):
            raise ValueError(
                f"{key} must have leading size {len(x)} or 1, but has {tuple(value.shape)}."
            )
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        found = function(leaf, *times, **data)
        return gradient_of(name, one_per_row(name, found, x), leaf)


def one_per_row(name: str, found: object, x: Tensor) -> Tensor:
    r"""Returns what a function of rows has found, refused unless it is one number for each."""

    if not isinstance(found, Tensor) or found.shape != x.shape[:1]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{name} must return one number per sample, with shape ({len(x)},), not {shape}."
        )
    return found


def gradient_of(name: str, found: Tensor, leaf: Tensor) -> Tensor:
    r"""Returns the gradient of numbers, one per row, with respect to the rows of a leaf, like the leaf.

    Arguments:
        name: What errors call the function that found them.
        found: The numbers, with shape (B,).
        leaf: What it was asked of, with shape (B, \*).
    """

    if not found.requires_grad:
        raise ValueError(
            f"{name} does not depend on the data by anything that has a gradient: leave out .detach(), "
            "argmax and no_grad."
        )
    (gradient,) = torch.autograd.grad(found.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise ValueError(f"{name} does not depend on the data that it is given.")
    return gradient


def check_gradients() -> None:
    r"""Refuses the mode in which there are no gradients at all."""

    if torch.is_inference_mode_enabled():
        raise ValueError(
            "inside torch.inference_mode() there are no gradients to be guided by; use torch.no_grad(), which "
            "saves as much."
        )


def check_function(
    name: str, function: object, data: Mapping[str, Tensor], takes: Sequence[str] = ("D",)
) -> None:
    r"""Refuses what is no function of data, or does not take what it will be given.

    Arguments:
        name: What errors call the function.
        function: The function.
        data: What it takes by name, each with leading size B or 1.
        takes: What it takes before that.
    """

    if not callable(function):
        raise TypeError(f"{name} must be a function of data, but is {function!r}.")
    for key, value in data.items():
        if not isinstance(value, Tensor) or not value.ndim:
            raise TypeError(f"{key} must be a tensor with leading size B or 1, but is {value!r}.")
    try:
        inspect.signature(function).bind(*takes, **data)
    except TypeError:
        words = ", ".join((*takes, *(f"{key}=..." for key in data)))
        raise TypeError(
            f"{name} is called as {name}({words}), which {function!r} does not take."
        ) from None
    except ValueError:  # of what has no signature
        pass


def check_owner(
    name: str, function: object, data: Mapping[str, Tensor], process: Process | None = None
) -> None:
    r"""Asks a classifier, of which a function is a method, whether it knows the data, and the process.

    Arguments:
        name: What errors call the function.
        function: The function.
        data: What it takes by name.
        process: The process, if it takes noisy data and its time.
    """

    owner = getattr(function, "__self__", None)
    if not isinstance(owner, Classifier):
        return
    if process is not None and owner.process != process:
        raise ValueError(
            f"{name} is of the process {owner.process}, but the model's is {process}: make the classifier anew "
            "from its network, as ss.Classifier(c.network, model.process, data_std=c.data_std, levels=c.levels)."
        )
    if process is not None and owner.levels[0] == owner.levels[1]:
        raise ValueError(
            "this classifier knows clean data alone; use guidance.universal with its loss."
        )
    for key, value in data.items():
        owner.check_condition(key, value)
