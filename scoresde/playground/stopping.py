r"""A model whose runs can be stopped from another thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

from torch import Tensor

from solvers.problem import StateField

from ..models.score_model import ScoreModel

_asked: ContextVar[Event | None] = ContextVar("asked", default=None)


class Stopped(BaseException):
    r"""The user has stopped a run; not an exception that a comparison takes for the failure of a solver."""


@contextmanager
def until(asked: Event) -> Iterator[None]:
    r"""Stops the runs in its block at their next network call once the event is set."""

    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def _look() -> None:
    asked = _asked.get()
    if asked is not None and asked.is_set():
        raise Stopped("stopped; the picture is the last one that was finished.")


class Stoppable(ScoreModel):
    r"""Creates the same model, to the last bit, whose calls end the run as :func:`until` says."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__()
        self.resemble(model)
        self.model = model

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return {name: Stoppable(part) for name, part in self.model.parts.items()}

    def part_levels(self, level: float) -> list[float]:
        return self.model.part_levels(level)

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        _look()
        return self.model.denoise(x, t, **condition)

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        _look()
        return self.model.raw(x, t, **condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        _look()
        return self.model.score(x, t, **condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        return [_watched(f) for f in self.model.combine(times, a, b, scale, x, **condition)]


def _watched(field: StateField) -> StateField:
    def watched(X: Tensor) -> Tensor:
        _look()
        return field(X)

    return watched
