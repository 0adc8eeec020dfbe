r"""The driver of a job: it hands shards to workers, keeps the manifest, and loses nothing."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import as_tensor
from tqdm import tqdm

from ..doors.warning import warn
from ..runs.progress import bar
from .engines import Died, Engine
from .folder import Folder
from .manifest import Manifest
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

        store = self.work.store
        with store.driven() as alive:
            self.manifest = self.manifest.going_on(store, here=self.workers in (None, 1))
            self.manifest.save(store)
            done = self._verified()
            todo = deque(k for k in range(self.manifest.shards) if k not in done)
            if todo:
                self._compute(todo, alive)
        if self.manifest.aside:
            some = ", ".join(list(self.manifest.aside)[:FEW])
            reason = next(iter(self.manifest.aside.values()))
            warn(
                f"shards {some} of {store.url} were set aside ({reason}); run the job again to try them again."
            )
        return Folder(store.url)

    def _verified(self) -> set[int]:
        r"""The finished shards, after a check of each."""

        folder, done = Folder(self.work.store.url), set()
        folder.__dict__["manifest"] = self.manifest
        for shard in folder.shards():
            done.add(shard.number)
            self._note(shard.number, shard.digest, len(shard.failed))
        for number in set(self.manifest.done) - set(map(str, done)):  # removed by the user
            del self.manifest.done[number]
            self.manifest.failed.pop(number, None)
        return done

    def _compute(self, todo: deque[int], alive: Callable[[], None]) -> None:
        left = sum(self.manifest.range(k)[1] for k in todo)
        count = self.manifest.count
        engine = started(self.workers, self.work, self.manifest.threads, len(todo))
        where = {"total": count, "initial": count - left}
        with bar(None, desc=self.manifest.verb, shown=self.progress, **where) as line:
            try:
                self._hand_out(engine, todo, line, alive)
            except KeyboardInterrupt:
                engine.close(kill=True)
                self.manifest.save(self.work.store)
                raise KeyboardInterrupt(self._so_far()) from None
            except BaseException:
                engine.close(kill=True)
                raise
            engine.close()
        self.manifest.save(self.work.store)

    def _so_far(self) -> str:
        done, shards = len(self.manifest.done), self.manifest.shards
        return (
            f"{done} of {shards} shards are in {self.work.store.url}; run the same again to go on."
        )

    def _hand_out(
        self, engine: Engine, todo: deque[int], line: tqdm, alive: Callable[[], None]
    ) -> None:
        saved = time.monotonic()
        while todo or engine.busy:
            while todo and engine.free > 0:
                engine.submit(self._task(todo.popleft()))
            for task, outcome in engine.ready():
                self._take(task, outcome, todo, line)
            alive()
            if time.monotonic() - saved > EVERY:
                self.manifest.save(self.work.store)
                saved = time.monotonic()

    def _task(self, number: int) -> Task:
        start, count = self.manifest.range(number)
        pieces = self.manifest.pieces.get(str(number), 1)
        if isinstance(self.data, Folder):
            return Task(number, start, count, pieces, solution_in(self.data.shard(number)))
        data = None if self.data is None else as_tensor(np.array(self.data[start : start + count]))
        return Task(number, start, count, pieces, data)

    def _take(self, task: Task, outcome: Any, todo: deque[int], line: tqdm) -> None:
        r"""Takes note of a result; a shard that did not fit into memory comes again, in halves."""

        if isinstance(outcome, Died):
            self.manifest.aside[str(task.number)] = str(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome.digest is None:
            if task.pieces >= task.count:
                raise MemoryError(f"one sample of {self.manifest.verb} does not fit into memory.")
            self.manifest.pieces[str(task.number)] = min(2 * task.pieces, task.count)
            self.manifest.save(self.work.store)
            todo.appendleft(task.number)
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

    def _note(self, number: int, digest: str, failed: int) -> None:
        self.manifest.done[str(number)] = digest
        if failed:
            self.manifest.failed[str(number)] = failed
