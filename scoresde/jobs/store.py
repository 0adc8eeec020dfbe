r"""The folder of a job: on this machine, or in an object store that fsspec knows."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from .lease import Lease, Taken, is_held

LOCK, PART = "job.lock", ".part"
GLANCE = 0.5  # seconds for which one who asks whether the job is driven may hold the lock
TAKEN = "another run works on the job in {url}; wait for it, or stop it, and run the same again to go on."


@dataclass(frozen=True)
class Store:
    r"""Creates the folder at a path or URL.

    Arguments:
        url: A path, or a URL such as `s3://bucket/job`.
    """

    url: str

    @cached_property
    def _place(self) -> tuple[Any, str]:
        try:
            fs, root = url_to_fs(self.url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ValueError(f"out={self.url!r} cannot be opened: {error}") from None
        return fs, str(root).rstrip("/")

    @property
    def local(self) -> Path | None:
        r"""The folder, if it is on this machine."""

        fs, root = self._place
        return Path(root) if isinstance(fs, LocalFileSystem) else None

    @property
    def of_process(self) -> bool:
        r"""Whether the folder is in the memory of this process, where others do not see it."""

        return isinstance(self._place[0], MemoryFileSystem)

    def read(self, name: str) -> bytes | None:
        r"""Returns the content of a file, or `None` if there is none."""

        fs, root = self._place
        try:
            return bytes(fs.cat_file(f"{root}/{name}"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> list[str]:
        r"""Returns the names of the files in a folder below, sorted."""

        fs, root = self._place
        try:
            found = fs.ls(f"{root}/{folder}".rstrip("/"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(path).rsplit("/", 1)[-1] for path in found)

    def write(self, name: str, content: bytes) -> None:
        r"""Writes a file whole or not at all, over what is there.

        Raises:
            OSError: If that is not possible, as on a full disk or in a read-only folder.
        """

        fs, root = self._place
        with self._writing(name):
            if self.local is None:
                fs.pipe_file(f"{root}/{name}", content)
            else:
                _write_whole(self.local / name, content)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self.url}/{name} cannot be written: {error.strerror or error}; nothing that was written "
                "before is lost, so make room, and run the same again to go on",
            ) from None

    def remove(self, name: str) -> None:
        r"""Removes a file, if it is there."""

        fs, root = self._place
        with suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")

    def create(self, name: str, content: bytes) -> bool:
        r"""Writes a file in an object store unless it is there, and returns whether it was not."""

        fs, root = self._place
        try:
            with self._writing(name):
                fs.pipe_file(f"{root}/{name}", content, mode="create")
        except FileExistsError:
            return False
        return True

    @contextmanager
    def driven(self) -> Iterator[Callable[[], None]]:
        r"""Keeps other runs from the job, and yields a function that refuses to go on if another took over.

        Raises:
            Taken: If another run works on the job.
        """

        if self.local is None:
            with Lease(self, LOCK, TAKEN.format(url=self.url)).held() as check:
                yield check
            return
        lock = FileLock(self.local / LOCK)
        try:
            self.local.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=GLANCE)
        except Timeout:
            raise Taken(TAKEN.format(url=self.url)) from None
        except OSError as error:
            raise OSError(
                error.errno,
                f"out={self.url} cannot be written: {error.strerror or error}; pass another folder",
            ) from None
        try:
            _sweep(self.local)  # after a run that was killed
            yield lambda: None
        finally:
            with suppress(OSError):
                _sweep(self.local)  # after workers that were
            lock.release()

    def is_driven(self) -> bool:
        r"""Returns whether a run works on the job now."""

        if self.local is None:
            return is_held(self.read(LOCK))
        if not (self.local / LOCK).exists():
            return False
        try:
            with FileLock(self.local / LOCK).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # of another user, whose run cannot be asked
            return False


def _sweep(folder: Path) -> None:
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def _write_whole(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}{PART}")
    try:
        with part.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
