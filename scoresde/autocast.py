r"""An outer autocast is for networks: the arithmetic of a run keeps the dtype of its state.

Changes of coordinates are matrix products, which autocast would take in half precision.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch

DEVICES = ("cpu", "cuda", "mps", "xpu")
Asked = Mapping[str, torch.dtype]  # the dtype that autocast takes, by the kind of device

_hidden: ContextVar[Asked] = ContextVar("hidden", default={})  # noqa: B039, which nobody changes


@contextmanager
def without_autocast() -> Iterator[None]:
    r"""Hides an outer autocast in its block, but for networks."""

    asked = {d: torch.get_autocast_dtype(d) for d in DEVICES if torch.is_autocast_enabled(d)}
    if not asked:
        yield
        return
    token = _hidden.set({**_hidden.get(), **asked})
    try:
        with ExitStack() as stack:
            for device in asked:
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        _hidden.reset(token)


def hidden_autocast() -> Asked:
    r"""Returns what is hidden, for functions that are called later, as when gradients are taken."""

    return _hidden.get()


@contextmanager
def autocast(asked: Asked) -> Iterator[None]:
    r"""Gives a network the autocast that is hidden from the run."""

    with ExitStack() as stack:
        for device, dtype in asked.items():
            stack.enter_context(torch.autocast(device, dtype=dtype))
        yield
