r"""The driver of a job: it hands shards to workers, keeps the manifest, and loses nothing."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, from_numpy
from tqdm import tqdm

from ..doors.warning import warn
from ..runs.progress import bar
from .engines import Died, Engine
from .folder import Folder
from .lease import Taken
from .manifest import FILE, Manifest
from .shards import name_of
from .start import Workers, started
from .work import ShardWork, Task, solution_in

EVERY = 2.0  # seconds between two states of the manifest
FEW = 5  # names in a message


@dataclass
class Driver:
    r"""Creates the driver of a job.

    Arguments:
        manifest: What the job is.
        work: The work on its shards.
        data: The data, with shape (N, *), or a job whose results it is, if the function takes data.
        workers: The workers.
        progress: Whether to show a progress bar.
    """

    manifest: Manifest
    work: ShardWork
    data: Any
    workers: Workers
    progress: bool

    def run(self) -> Folder:
        r"""Computes all shards that are missing, and returns the results."""

        store, threads = self.work.store, self.manifest.threads
        with store.driven() as check:
            new = Manifest.read(store) is None
            self.manifest = self.manifest.going_on(store)
            self.manifest.save(store)
            try:
                done = self._verified(check)
                todo = deque(k for k in range(self.manifest.shards) if k not in done)
                if todo:
                    self._compute(todo, threads, check)
                self.manifest.save(store)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._so_far()) from None
            except Taken:
                raise
            except Exception:  # such as of an option, or of a cluster that does not answer
                if new and not (self.manifest.done or self.manifest.pieces):
                    store.remove(FILE)
                raise
        self._tell_of_aside()
        return Folder(store.url)

    def _tell_of_aside(self) -> None:
        if self.manifest.aside:
            some = ", ".join(list(self.manifest.aside)[:FEW])
            reason = next(iter(self.manifest.aside.values()))
            warn(
                f"shards {some} of {self.work.store.url} were set aside ({reason}); run the job again to try "
                "them again."
            )

    def _verified(self, check: Callable[[], None]) -> set[int]:
        r"""The finished shards, after a check of each."""

        folder, done = Folder(self.work.store.url), set()
        folder.__dict__["manifest"] = self.manifest
        for shard in folder.shards():
            check()
            done.add(shard.number)
            self._note(shard.number, shard.digest, len(shard.failed))
            if shard.pieces > 1:
                self.manifest.pieces[str(shard.number)] = shard.pieces
        for number in set(self.manifest.done) - set(map(str, done)):  # removed by the user
            del self.manifest.done[number]
            self.manifest.failed.pop(number, None)
        return done

    def _compute(self, todo: deque[int], threads: int, check: Callable[[], None]) -> None:
        left = sum(self.manifest.range(k)[1] for k in todo)
        count = self.manifest.count
        engine = started(self.workers, self.work, threads, len(todo))
        where = {"total": count, "initial": count - left}
        with bar(None, desc=self.manifest.verb, shown=self.progress, **where) as line:
            try:
                self._hand_out(engine, todo, line, check)
            except BaseException as error:
                engine.close(kill=True)
                if not isinstance(error, Taken | OSError):
                    self.manifest.save(self.work.store)
                raise
            engine.close()

    def _so_far(self) -> str:
        done, shards = len(self.manifest.done), self.manifest.shards
        return (
            f"{done} of {shards} shards are in {self.work.store.url}; run the same again to go on."
        )

    def _hand_out(
        self, engine: Engine, todo: deque[int], line: tqdm, check: Callable[[], None]
    ) -> None:
        saved = time.monotonic()
        while todo or engine.busy:
            while todo and engine.free > 0:
                engine.submit(self._task(todo.popleft()))
            for task, outcome in engine.ready():
                self._take(task, outcome, todo, line)
            check()
            if time.monotonic() - saved > EVERY:
                self.manifest.save(self.work.store)
                saved = time.monotonic()

    def _task(self, number: int) -> Task:
        start, count = self.manifest.range(number)
        pieces = self.manifest.pieces.get(str(number), 1)
        if isinstance(self.data, Folder):
            return Task(number, start, count, pieces, solution_in(self.data.shard(number)))
        data = None if self.data is None else _copied(self.data[start : start + count])
        return Task(number, start, count, pieces, data)

    def _take(self, task: Task, outcome: Any, todo: deque[int], line: tqdm) -> None:
        r"""Takes note of a result; a shard that did not fit into memory comes again, in halves."""

        if isinstance(outcome, Died):
            self.manifest.aside[str(task.number)] = str(outcome)
        elif isinstance(outcome, MemoryError):
            self._halve(task, todo)
        elif isinstance(outcome, BaseException):
            outcome.add_note(
                f"This was at shard {task.number} of {self.work.store.url}, with {task.count} samples from "
                f"{task.start} on."
            )
            raise outcome
        else:
            self._check_there(task.number)
            self._note(task.number, outcome.digest, outcome.failed)
            line.update(task.count)

    def _check_there(self, number: int) -> None:
        r"""Sees that a worker on another machine wrote a shard to the same folder."""

        local = self.work.store.local
        if local is not None and not (local / name_of(number)).exists():
            raise FileNotFoundError(
                f"shard {number} was written, but not on this machine; pass a folder that all machines of the "
                f"cluster share as out=, or the URL of an object store, instead of {self.work.store.url}."
            )

    def _halve(self, task: Task, todo: deque[int]) -> None:
        if task.pieces >= task.count:
            raise MemoryError(
                f"a single sample of shard {task.number} does not fit into memory; with fewer workers= each "
                "has more."
            )
        self.manifest.pieces[str(task.number)] = min(2 * task.pieces, task.count)
        self.manifest.save(self.work.store)
        todo.appendleft(task.number)

    def _note(self, number: int, digest: str, failed: int) -> None:
        self.manifest.done[str(number)] = digest
        if failed:
            self.manifest.failed[str(number)] = failed


def _copied(rows: Any) -> Tensor:
    r"""A tensor of its own, since one that is a part of another is shipped with the whole."""

    return rows.clone() if isinstance(rows, Tensor) else from_numpy(np.array(rows))
