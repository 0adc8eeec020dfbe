r"""Networks from their names in cards and weights in files, which are checked before use.

No network is built larger than the weights that came with its card.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..files import Json
from .constructors import built, computes_when_built, constructor_of

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def build_network(
    card: Json,
    tensors: Mapping[str, Tensor],
    trust: bool = False,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    r"""Returns the network that a card names, with its weights.

    It is first built without memory, and no larger than the weights.

    Arguments:
        card: The card.
        tensors: The weights.
        trust: Whether a constructor that is not registered is imported and called.
        dtype: The dtype of the weights. By default, float64 if the file holds it, otherwise float32.

    Raises:
        ValueError: If network and weights do not match, or a weight is not finite in this dtype.
    """

    name, settings = card["network"]["name"], card["network"]["settings"]
    make = constructor_of(name, trust)
    network = built(name, make, settings, len(tensors))
    wanted = network.state_dict()
    for key in [*wanted, *tensors]:
        where = "its card" if key not in wanted else "its file"
        if key not in wanted or key not in tensors:
            raise ValueError(f"the weight {key!r} of {name} with {settings} is not in {where}")
        _check_weight(key, tensors[key], wanted[key])
    if dtype is None:
        wide = any(value.dtype == torch.float64 for value in tensors.values())
        dtype = torch.float64 if wide else torch.float32
    ready = {
        key: in_dtype(f"the weight {key!r}", value, dtype)
        if value.is_floating_point()
        else value.to(wanted[key].dtype, copy=True)
        for key, value in tensors.items()
    }
    if computes_when_built(network):
        network = nn.Module.to(make(**settings), dtype)  # past what classes add to `to`
    network.load_state_dict(ready, assign=True)
    return network.eval()


def _check_weight(key: str, value: Tensor, wanted: Tensor) -> None:
    if value.shape != wanted.shape:
        shapes = f"{tuple(value.shape)}, not {tuple(wanted.shape)}"
        raise ValueError(
            f"the weight {key!r} must have the shape of the network, but has {shapes}"
        )
    if value.is_floating_point() != wanted.is_floating_point():
        kind = "floating-point" if wanted.is_floating_point() else "whole"
        raise ValueError(f"the weight {key!r} must hold {kind} numbers, but holds {value.dtype}")
    check_numbers(f"the weight {key!r}", value)


def check_dtype(dtype: torch.dtype | None) -> None:
    r"""Refuses a dtype that weights cannot have."""

    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, but is {dtype}.")


def in_dtype(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Returns a copy of a finite tensor in a dtype that can hold it."""

    found = value.to(dtype, copy=True)
    if not bool(found.isfinite().all()):
        raise ValueError(
            f"{name} goes to {value.abs().max():.3g}, beyond {dtype}; pass dtype=torch.float32 or wider, or leave "
            "it out."
        )
    return found


def check_numbers(name: str, value: Tensor) -> None:
    r"""Refuses a tensor with complex, infinite or NaN entries."""

    if value.is_complex():
        raise ValueError(f"{name} must hold real numbers, but holds {value.dtype}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinite numbers")
