r"""Checks of data and numbers at the door."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .models import ScoreModel


def model_device(model: ScoreModel) -> torch.device | None:
    r"""Returns the device of the model's tensors, or `None` if it has none.

    Weights that were moved elsewhere, and lie on "meta", do not tell where the network computes.
    """

    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), None)


def model_dtype(model: ScoreModel) -> torch.dtype:
    r"""Returns the dtype for states: float64 if the model's is, else float32."""

    for parameter in model.parameters():
        return torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return torch.get_default_dtype()


def check_transforms() -> None:
    r"""Refuses a call from inside torch.func.grad, jvp, vmap and their like, which see nothing of a run."""

    dual = (
        forward_ad._current_level >= 0
    )  # where derivatives inside would be taken for those outside
    if dual or torch._C._functorch.peek_interpreter_stack() is not None:
        raise ValueError(
            "this cannot be called inside torch.func.grad, vjp, jvp, vmap or another transform of torch.func, nor "
            "under forward_ad.dual_level(); for gradients, pass grad='backprop' and use torch.autograd; for many "
            "samples, pass one batch."
        )


def check_data(
    model: ScoreModel,
    x: Tensor,
    name: str = "x",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Returns states in float32 or float64, on the model's device.

    Raises:
        TypeError: If `x` is no tensor, or holds integers.
        ValueError: If its shape, device or values do not fit.
    """

    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, but is a {type(x).__name__}.")
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must hold floating-point numbers, but holds {x.dtype}; scale integer data as "
            "in training, and pass levels through ss.dequantize for likelihoods."
        )
    if x.ndim < 2 or 0 in x.shape:
        shape = tuple(x.shape)
        raise ValueError(f"{name} must have shape (B, *) with B >= 1, but has {shape}.")
    check_shape(model, tuple(x.shape[1:]), name)
    if device is not None:
        x = x.to(device)
    home = model_device(model)
    if home is not None and home.type != x.device.type:
        raise ValueError(f"{name} is on {x.device} but the model on {home}; move one of them.")
    bad = (~x.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(
            f"{name} must be finite, but has NaN or infinite entries in rows {bad[:8]}."
        )
    if dtype is None:
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return x.to(dtype)


def check_shape(model: ScoreModel, shape: tuple[int, ...], name: str) -> None:
    r"""Refuses a shape of one sample that is not the model's."""

    if model.shape is not None and shape != tuple(model.shape):
        raise ValueError(
            f"{name} must be (B, {', '.join(map(str, model.shape))}) for this model, but its "
            f"samples have shape {shape}."
        )


def check_number(name: str, value: object) -> None:
    r"""Refuses what is not a number."""

    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{name} must be a number, but is {value!r}.")


def check_finite(name: str, value: object) -> None:
    r"""Refuses what is not a finite number."""

    check_number(name, value)
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, but is {value}.")


def check_interval(interval: object) -> None:
    r"""Refuses what is no interval of noise levels, the lower first; 0 and `inf` are no limits."""

    pair = isinstance(interval, tuple | list) and len(interval) == 2
    numbers = pair and all(isinstance(level, int | float) for level in interval)  # type: ignore[attr-defined]
    if not numbers or not 0 <= interval[0] < interval[1]:  # type: ignore[index]
        raise ValueError(
            f"interval must be two noise levels, the lower first, but is {interval}; (0, inf) is everywhere."
        )


def check_count(name: str, value: object, at_least: int | None) -> None:
    r"""Refuses what is not a whole number, or is too small."""

    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, but is {value!r}.")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, but is {value}.")


def check_several(name: str, values: object) -> None:
    r"""Refuses what is no list of things, or an empty one."""

    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, but is {values!r}; write [{values!r}].")
    if not values:
        raise ValueError(f"{name} must not be empty; leave it out for the default.")
