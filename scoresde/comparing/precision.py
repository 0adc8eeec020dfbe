r"""Networks in half precision, whose rounding sets a floor to the error of any solver."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..models.autocast import DEVICES
from ..models.network import HALVES, NetworkScore
from ..models.score_model import ScoreModel


def half_of(model: ScoreModel) -> torch.dtype | None:
    r"""Returns the dtype of half precision in which a network of a model computes, if one does."""

    for device in DEVICES:
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) in HALVES:
            return torch.get_autocast_dtype(device)
    found = (p.dtype for network in _networks(model) for p in network.parameters())
    return next((dtype for dtype in found if dtype in HALVES), None)


def in_full(model: ScoreModel) -> ScoreModel:
    r"""Returns a copy of a model whose networks have the same weights in float32."""

    full = copy.deepcopy(model)
    for network in _networks(full):
        network._apply(_full)
    return full


@contextmanager
def without_half() -> Iterator[None]:
    r"""Computes in the dtypes of the weights, whatever autocast is around."""

    with ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, DEVICES):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALVES else x


def _networks(model: ScoreModel) -> Iterator[nn.Module]:
    r"""The networks that are modules, and so can be copied in another dtype."""

    for part in model.modules():
        if isinstance(part, NetworkScore) and isinstance(part.network, nn.Module):
            yield part.network
