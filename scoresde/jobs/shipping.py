r"""The way of a model, or other work, to a worker."""

import pickle
from typing import Any


def packed(work: object) -> bytes:
    r"""Returns an object as bytes for a worker.

    Raises:
        ValueError: If it cannot be shipped.
    """

    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:  # of any kind, from the parts of the user's model
        raise ValueError(
            f"the model cannot be shipped to workers ({' '.join(str(error).split())}); save it with ss.save and "
            "pass the file, or pass a function of your own module that makes it, or leave out workers=."
        ) from None


def unpacked(payload: Any) -> Any:
    r"""Returns the object in bytes of :func:`packed`, or an array of them, which come from the driver alone."""

    try:
        return pickle.loads(payload)
    except Exception as error:
        raise ValueError(
            f"a worker cannot make the model ({' '.join(str(error).split())}); its code must be importable there."
        ) from None
