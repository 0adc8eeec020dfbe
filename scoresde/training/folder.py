r"""The folder of a training: that it can be written, by one training at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .failure import TrainingError

LOCK = ".lock"


def check_writable(folder: Path) -> None:
    r"""Refuses a folder that cannot be made or written to, by writing an empty file."""

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise ValueError(
            f"out must be a folder that can be written, but {folder} is not ({error.strerror}); pass another."
        ) from None


@contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    r"""Refuses a folder that another training is writing to, where the system can tell.

    The lock ends with the process, however that ends.
    """

    try:
        import fcntl
    except ImportError:
        folder = None
    if folder is None:
        yield
        return
    with (folder / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another training is writing to {folder}; wait, or pass another folder as out=."
            ) from None
        yield


@contextmanager
def written(file: Path) -> Iterator[None]:
    r"""Turns errors of the system in its block, such as those of full disks, into one with a cure.

    Raises:
        TrainingError: If a file cannot be written. That of before is kept.
    """

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{file} cannot be written ({error}); what was there before is kept: free some space, or make the "
            "folder writable, and call again to go on from the last checkpoint."
        ) from error
