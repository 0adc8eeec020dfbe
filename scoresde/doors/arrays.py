r"""Arrays in files: npz and npy. Nothing in a file is executed."""

import zipfile
from pathlib import Path

import numpy as np


def open_arrays(file: Path) -> dict[str, np.ndarray]:
    r"""Returns the arrays of a file by name; that of an npy file is `x`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no arrays of numbers.
    """

    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}.")
    try:
        loaded = np.load(file, allow_pickle=False)
        return {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        words = "it holds no numbers" if "pickle" in str(error) else error
        raise ValueError(f"{file} is not an array file, or is damaged ({words}).") from None
