r"""Weights in files, inspected before memory is allocated for them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

Shapes = dict[str, tuple[int, ...]]
SPARE = 2  # the factor for foreign networks, which may make weights and drop them


def shapes_in(file: Path) -> Shapes:
    r"""Returns the shapes of the tensors of a safetensors file, of which the header alone is read.

    Raises:
        ValueError: If it is none, or truncated.
    """

    try:
        with safe_open(file, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(damaged(file, error)) from None


def damaged(file: Path, error: Exception) -> str:
    r"""Returns the message about a damaged file of weights."""

    return (
        f"{file} is not a safetensors file, or is truncated ({error}); download or save it again."
    )


class _Unfilled(TorchFunctionMode):
    r"""Skips initial values of weights: for those on the device "meta", torch imports its compiler, in seconds."""

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        arguments: tuple[object, ...] = (),
        keywords: Mapping[str, object] | None = None,
    ) -> object:
        keywords = keywords or {}
        if getattr(function, "__module__", "") == nn.init.__name__:
            return [*arguments, *keywords.values()][0]
        return function(*arguments, **keywords)


@contextmanager
def without_memory(count: int, spare: int = 1) -> Iterator[None]:
    r"""Lets networks be built without memory for their weights, until they have made too many parameters.

    Arguments:
        count: The number of tensors in its file.
        spare: The factor by which it may exceed `count`, for parameters that are dropped on the way.
    """

    here, built = threading.get_ident(), 0

    def tally(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal built
        built += threading.get_ident() == here
        if built > spare * count:
            raise ValueError(f"its settings make more weights than the {count} of its file")

    hook = register_module_parameter_registration_hook(tally)
    try:
        with torch.device("meta"), _Unfilled():
            yield
    finally:
        hook.remove()
