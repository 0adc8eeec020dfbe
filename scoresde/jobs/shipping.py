r"""The way of a model, or other work, to a worker."""

import pickle
from typing import Any

import torch


class NotShipped(ValueError):
    r"""The refusal of an object that cannot be shipped.

    Arguments:
        reason: The reason, in the words of the serialiser.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the model cannot be shipped to workers ({reason}); save it with ss.save and pass the file, or pass "
            "a function of your own module that makes it, or leave out workers=."
        )
        self.reason = reason


def packed(work: object) -> bytes:
    r"""Returns an object as bytes for a worker, with the default dtype, which the results may depend on.

    Raises:
        NotShipped: If it cannot be shipped.
    """

    import cloudpickle

    try:
        return bytes(cloudpickle.dumps((work, torch.get_default_dtype())))
    except Exception as error:  # of any kind, from the parts of the user's model
        raise NotShipped(" ".join(str(error).split())) from None


def unpacked(payload: bytes) -> Any:
    r"""Returns the object in bytes of :func:`packed`, which come from the driver alone."""

    try:
        work, dtype = pickle.loads(payload)
    except Exception as error:
        raise ValueError(
            f"a worker cannot make the model ({' '.join(str(error).split())}); its code must be importable there."
        ) from None
    torch.set_default_dtype(dtype)
    return work
