r"""The way of a model, or other work, to a worker."""

import pickle
from collections.abc import Callable
from typing import Any

import torch

STATE: tuple[
    tuple[Callable[[], Any], Callable[[Any], None]], ...
] = (  # of a process, on which bits depend
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
)


def packed(work: object) -> bytes:
    r"""Returns an object as bytes for a worker, with the state of PyTorch in this process.

    Raises:
        ValueError: If it cannot be shipped.
    """

    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(([get() for get, _ in STATE], work)))
    except Exception as error:  # of any kind, from the parts of the user's model
        raise ValueError(
            f"the model cannot be shipped to workers ({' '.join(str(error).split())}); save it with ss.save and "
            "pass the file, or pass a function of your own module that makes it, or leave out workers=."
        ) from None


def unpacked(payload: Any) -> Any:
    r"""Returns the object in bytes of :func:`packed`, which come from the driver alone, and takes on the state."""

    try:
        state, work = pickle.loads(payload)
    except Exception as error:
        raise ValueError(
            f"a worker cannot make the model ({' '.join(str(error).split())}); its code must be importable there."
        ) from None
    for (_, put), value in zip(STATE, state, strict=True):
        put(value)
    return work


def ships(value: object) -> bool:
    r"""Returns whether an object comes back whole, which errors of classes with arguments of their own may not."""

    import cloudpickle

    try:
        pickle.loads(cloudpickle.dumps(value))
    except Exception:
        return False
    return True
