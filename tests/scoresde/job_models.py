r"""Models of job tests, whose workers import them: networks that work row by row, so that bits do not mix."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.jobs import drive
from scoresde.jobs.engines import Engine, Here, Work

CALLS = [0]
N, SIZE = 10, 3  # samples, and samples of a shard: four shards, of which the last has one


def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    r"""The mean of normal data with variance 1/4 around its label."""

    CALLS[0] += 1
    mean = torch.zeros(1).to(x) if label is None else label.to(x)
    level = (t * t).reshape(-1, 1)
    return mean.reshape(-1, 1) + (x - mean.reshape(-1, 1)) / (1 + 4 * level)


def made() -> ss.NetworkScore:
    return of(network)


def of(function: Callable[..., Tensor]) -> ss.NetworkScore:
    return ss.NetworkScore(
        function, ss.EDM(), "data", conditions=["label"], shape=(2,), data_scale=1.0
    )


def slow(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    time.sleep(0.002)
    return network(x, t, label)


def made_slowly() -> ss.NetworkScore:
    return of(slow)


class Deadly:
    r"""A network whose process is killed when it sees label 4, as often as a file has letters.

    Arguments:
        file: The file.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        if bool((label == 4).any()):
            left = Path(self.file).read_text()
            Path(self.file).write_text(left[1:])
            if left:
                os.kill(os.getpid(), signal.SIGKILL)
        return network(x, t, label)


@contextmanager
def engine(make: Callable[[Work], Engine]) -> Iterator[None]:
    r"""Lets jobs of this process work on the given engine."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive, "started", lambda workers, work, threads, tasks: make(work))
        yield


class Backwards(Here):
    r"""An engine that takes all tasks, and does the last one first."""

    @property
    def free(self) -> int:
        return 100 - len(self._tasks)

    def ready(self) -> list[tuple[Any, Any]]:
        self._tasks.reverse()
        found = super().ready()
        self._tasks.reverse()
        return found
