r"""Argument checks of data and numbers."""

import contextlib
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from solvers.doors.values import MOST, as_device, as_number, as_whole, is_number

from ..doors.data import as_data, as_floats, check_rows_finite
from ..processes.blocks.process import BlockProcess
from ..processes.process import Process
from .masked import masked_of
from .score_model import ScoreModel
from .transforms import Data, same_transform

T = TypeVar("T")


def check_alike(name: str, models: Sequence[ScoreModel]) -> None:
    r"""Refuses models whose states differ: of other processes, of data in another form, or with other entries.

    Arguments:
        name: What errors call the models.
        models: The models, at least one.
    """

    first = models[0]
    for other in models[1:]:
        if other.process != first.process:
            raise ValueError(
                f"{name} must have the same process, but have {first.process} and {other.process}."
            )
        if not same_transform(first.transform, other.transform):
            raise ValueError(
                f"{name} must have the same transform, since they share states, but have {first.transform!r} "
                f"and {other.transform!r}; set model.transform alike for all. To take latents from one to the "
                "other, call ss.encode with the one and ss.decode with the other."
            )
        masks = [
            None if (part := masked_of(model)) is None else part.mask for model in (first, other)
        ]
        if not _same_mask(*masks):
            said = " and ".join(
                "none" if mask is None else f"shape {tuple(mask.shape)}" for mask in masks
            )
            raise ValueError(
                f"{name} must have the same mask, but their masks have {said}; pass ss.Masked(model, mask) "
                "of each, with one mask."
            )


def _same_mask(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one is other:
        return one is other
    fits = one.shape[1:] == other.shape[1:] and (
        len(one) == len(other) or 1 in (len(one), len(other))
    )
    return fits and torch.equal(*torch.broadcast_tensors(one, other.to(one.device)))


def model_device(model: ScoreModel) -> torch.device | None:
    r"""Returns the device of the model's tensors, or `None` if it has none.

    Offloaded weights, on the device "meta", do not tell where the network computes.
    """

    return device_of(model.modules())


def device_of(modules: Iterable[nn.Module]) -> torch.device | None:
    r"""Returns the device of the first tensor of the modules, with parameters before buffers."""

    modules = tuple(modules)
    for kind in ("_parameters", "_buffers"):
        for module in modules:
            for tensor in getattr(module, kind).values():
                if tensor is not None and not tensor.is_meta:
                    return tensor.device  # type: ignore[no-any-return]
    return None


def model_dtype(model: ScoreModel) -> torch.dtype:
    r"""Returns the dtype for states: float64 if that is the model's dtype, otherwise float32."""

    return dtype_of(model.modules())


def dtype_of(modules: Iterable[nn.Module]) -> torch.dtype:
    r"""Returns the dtype for states that follows from the first parameter of the modules."""

    for module in modules:
        for parameter in module._parameters.values():
            if parameter is not None:
                return torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def check_transforms() -> None:
    r"""Refuses calls inside torch.func.grad, jvp, vmap and the like, which cannot see into a run."""

    dual = (
        forward_ad._current_level >= 0
    )  # where derivatives inside would be confused with those outside
    if dual or torch._C._functorch.peek_interpreter_stack() is not None:
        raise ValueError(
            "this cannot be called inside torch.func.grad, vjp, jvp, vmap or another transform of torch.func, nor "
            "under forward_ad.dual_level(); for gradients, pass grad='backprop' and use torch.autograd; for many "
            "samples, pass one batch."
        )


def check_data(
    model: ScoreModel,
    x: Data,
    name: str = "x",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Returns states in float32 or float64, on the model's device.

    Raises:
        TypeError: If `x` is not a tensor, or holds integers.
        ValueError: If its shape, device or values do not fit.
    """

    x = as_data(name, x, finite=False)
    if not is_state(model, x):
        check_shape(model, tuple(x.shape[1:]), name)
    if device is not None:
        x = x.to(as_device("device", device))
    home = model_device(model)
    if home is not None and home.type != x.device.type:
        raise ValueError(f"{name} is on {x.device}, but the model is on {home}; move one of them.")
    check_rows_finite(name, x)
    if dtype is None:
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return x.to(dtype)


def is_state(model: ScoreModel, x: Tensor) -> bool:
    r"""Returns whether these are states with parts that data lacks, such as velocities."""

    process = model.process
    if not isinstance(process, BlockProcess) or model.shape is None:
        return False
    whole = process.state_shape((len(x), *model.shape))
    return tuple(x.shape) == tuple(whole) != (len(x), *model.shape)


def is_whole(model: ScoreModel, x: Tensor) -> bool:
    r"""Returns whether data was given as whole states, which a model with a transform refuses."""

    whole = is_state(model, x)
    if whole and model.transform is not None:
        raise ValueError(
            f"x has the shape of whole states of {type(model.process).__name__}, but {model.transform!r} is a "
            "transform of data; pass data, or set model.transform = None."
        )
    return whole


def check_shape(model: ScoreModel, shape: tuple[int, ...], name: str) -> None:
    r"""Refuses a sample shape that is not the model's."""

    if model.shape is not None and shape != tuple(model.shape):
        raise ValueError(
            f"{name} must be (B, {', '.join(map(str, model.shape))}) for this model, but its "
            f"samples have shape {shape}."
        )


def check_number(name: str, value: T, low: float = -math.inf, high: float = math.inf) -> T:
    r"""Returns a number as a Python number, after checking its range."""

    value = as_number(name, value)
    if isinstance(value, int | float) and (value < low or value > high):
        most = f", at most {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a finite number >= {low:g}{most}, but is {value:g}.")
    return value


def check_numbers(name: str, values: object) -> list[float]:
    r"""Returns finite numbers as a list of Python numbers."""

    found: list[float] = as_floats(name, values, least=1, dtype=torch.float64).flatten().tolist()
    return found


def check_finite(name: str, value: T) -> T:
    r"""Returns a number as a Python number, after checking that it is finite."""

    value = as_number(name, value)
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, but is {value}.")
    return value


def check_interval(interval: object) -> None:
    r"""Refuses anything but an interval of noise levels, the lower first; 0 and `inf` stand for no limit."""

    pair = list(interval) if isinstance(interval, Sequence | np.ndarray | Tensor) else []
    if len(pair) != 2 or not all(map(is_number, pair)) or not 0 <= pair[0] < pair[1]:
        raise ValueError(
            f"interval must be two noise levels, the lower first, but is {interval}; (0, inf) is everywhere."
        )


def check_count(name: str, value: T, at_least: int | None, at_most: int | None = MOST) -> T:
    r"""Returns a whole number as a Python int, after checking its range."""

    return as_whole(name, value, at_least, at_most)


def check_callback(callback: object) -> None:
    r"""Refuses a callback that cannot be called with one argument, as far as its signature tells."""

    fits = callback is None or callable(callback)
    with contextlib.suppress(ValueError):  # built-in functions may have no signature
        try:
            inspect.signature(callback).bind(None) if callable(callback) else None
        except TypeError:
            fits = False
    if not fits:
        raise TypeError(f"callback must be a function of one event, but is {callback!r}.")


def check_several(name: str, values: object) -> None:
    r"""Refuses anything but a list, and an empty list."""

    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, but is {values!r}; write [{values!r}].")
    if not values:
        raise ValueError(f"{name} must not be empty; leave it out for the default.")


def check_process(process: object) -> None:
    r"""Refuses anything that is not a process."""

    if not isinstance(process, Process):
        raise TypeError(f"process must be a process such as ss.VP(), but is {process!r}.")
