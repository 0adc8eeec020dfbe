r"""Where work is done: in this process, in processes of this machine, or on a Ray cluster.

An engine gets the work once, a function, and then any number of tasks, each of which it hands to a free worker.
It returns the results in the order in which they are ready. A worker that dies is replaced, and its task given to
another one; a task whose workers died :data:`TRIES` times ends in :class:`Died`.

The processes of this machine are those of loky, one executor for each, so that a death concerns one task alone.
Beside `concurrent.futures`, loky sets the number of threads of a process before PyTorch is imported there, does
not run the user's script again, and ships models that were defined in a notebook.
"""

import hashlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import Any, Protocol, TypeAlias

from .shipping import packed, ships, unpacked

Work: TypeAlias = Callable[[Any], Any]
TRIES = 3
PAUSE = 0.5  # seconds after which an engine that waits looks up


class Died(RuntimeError):
    r"""The end of a task whose workers died."""


class Engine(Protocol):
    r"""Workers that do one kind of work."""

    @property
    def free(self) -> int:
        r"""How many more tasks it takes now."""

    @property
    def busy(self) -> int:
        r"""How many tasks it has."""

    def submit(self, task: Any) -> None:
        r"""Takes a task."""

    def ready(self) -> list[tuple[Any, Any]]:
        r"""Returns tasks with their results or errors; none, if nothing is ready after a short time."""

    def close(self, kill: bool = False) -> None:
        r"""Ends the workers, at once or after their tasks."""


class Here:
    r"""Creates the engine that is this process.

    Arguments:
        work: The work.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tasks: deque[Any] = deque()

    @property
    def free(self) -> int:
        return 1 - len(self._tasks)

    @property
    def busy(self) -> int:
        return len(self._tasks)

    def submit(self, task: Any) -> None:
        self._tasks.append(task)

    def ready(self) -> list[tuple[Any, Any]]:
        if not self._tasks:
            return []
        task = self._tasks.popleft()
        try:
            return [(task, self._work(task))]
        except Exception as error:
            return [(task, error)]

    def close(self, kill: bool = False) -> None:
        self._tasks.clear()


class Pool:
    r"""Creates an engine of processes on this machine.

    Arguments:
        work: The work.
        workers: The number of processes.
        threads: The number of threads of each.
    """

    def __init__(self, work: Work, workers: int, threads: int) -> None:
        self._payload, self._threads = packed(work), threads
        self._key = hashlib.sha256(self._payload).hexdigest()
        self._idle: list[Any] = [None] * workers  # executors, or None where one is to be started
        self._running: dict[Future[Any], tuple[Any, Any, int]] = {}
        self._equipped: set[Any] = set()  # executors whose process has the work

    @property
    def free(self) -> int:
        return len(self._idle)

    @property
    def busy(self) -> int:
        return len(self._running)

    def submit(self, task: Any) -> None:
        self._give(self._idle.pop() or self._started(), task, 1)

    def ready(self) -> list[tuple[Any, Any]]:
        done, _ = wait(self._running, timeout=PAUSE, return_when=FIRST_COMPLETED)
        found = []
        for future in done:
            executor, task, tries = self._running.pop(future)
            error = future.exception()
            if not isinstance(error, BrokenExecutor):
                self._idle.append(executor)
                self._equipped |= set() if error else {executor}
                found.append((task, error or future.result()))
                continue
            executor.shutdown(wait=False, kill_workers=True)
            if tries < TRIES:
                self._give(self._started(), task, tries + 1)
            else:
                self._idle.append(None)
                found.append((task, Died(f"{TRIES} workers died at it: {reason(error)}")))
        return found

    def close(self, kill: bool = False) -> None:
        executors = [*self._idle, *(executor for executor, _, _ in self._running.values())]
        for executor in executors:
            if executor is not None:
                executor.shutdown(wait=not kill, kill_workers=kill)
        self._running.clear()

    def _give(self, executor: Any, task: Any, tries: int) -> None:
        payload = None if executor in self._equipped else self._payload
        future = executor.submit(call, self._key, payload, task)
        self._running[future] = (executor, task, tries)

    def _started(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        return ProcessPoolExecutor(
            max_workers=1,
            initializer=_begin,
            initargs=(os.getpid(),),
            env=thread_variables(self._threads),
        )


_KNOWN: dict[str, Work] = {}  # the work of this worker, unpacked once


def _begin(driver: int) -> None:
    r"""Lets the driver alone answer an interrupt, which a terminal sends to all processes, and ends with it."""

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(driver,), daemon=True).start()


def _end_after(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(PAUSE)
    os._exit(1)


def call(key: str, payload: Any, task: Any) -> Any:
    r"""Does a task in a worker.

    Arguments:
        key: The digest of the work.
        payload: The packed work, as bytes or an array of them, or `None` if the worker has it.
        task: The task.
    """

    if key not in _KNOWN:
        _KNOWN.clear()
        _KNOWN[key] = unpacked(payload)
    try:
        return _KNOWN[key](task)
    except Exception as error:
        if not ships(error):
            raise RuntimeError(f"{type(error).__name__}: {reason(error)}") from error
        raise


def thread_variables(threads: int) -> dict[str, str]:
    r"""Returns the environment in which PyTorch has a number of threads."""

    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def reason(error: BaseException) -> str:
    r"""Returns the words of an error in one line."""

    return " ".join(str(error).split()) or type(error).__name__
