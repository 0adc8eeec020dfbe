r"""The options of a training that decide its result, and their values in words."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ..models.checks import check_count, check_number
from ..processes.process import Process
from .averages import check_width

Coupling = Literal["independent", "ot", "paired"]
Schedule = Literal["cosine", "inverse_sqrt", "constant"]
Precision = Literal["float32", "bfloat16"]
Loss = Callable[..., Tensor]
LONGEST = 10**8  # steps
ENTRIES, WARMUP = 20, 100  # of the history, and the most steps of a warm-up, by default


class Levels(Protocol):
    r"""A distribution of noise levels."""

    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        r"""Returns the log-SNRs at shares of the distribution, with their shape."""


@dataclass(frozen=True)
class Options:
    r"""Creates the options that decide the result of a training.

    Arguments:
        steps: The number of steps.
        batch_size: The number of samples in each step.
        lr: The maximum learning rate.
        warmup: The number of steps in which the learning rate rises.
        schedule: How it falls then.
        clip: The largest norm of the gradient, or `None`.
        ema: The width of the average that is returned.
        dropped: The share of samples whose conditions are dropped.
        patience: The number of validations without improvement after which the training stops, or `None`.
        every: The number of steps between validations, entries of the history, and checkpoints.
        snapshots: The number of times at which averages are kept.
        precision: The dtype in which the network computes.
        compile: Whether the network is compiled.
        seed: The seed.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: int
    schedule: Schedule
    clip: float | None
    ema: float
    dropped: float
    patience: int | None
    every: int
    snapshots: int
    precision: Precision
    compile: bool
    seed: int

    def __post_init__(self) -> None:
        for name in ("steps", "every"):
            check_count(name, getattr(self, name), at_least=1, at_most=LONGEST)
        check_count("batch_size", self.batch_size, at_least=1)
        for name in ("warmup", "snapshots"):
            check_count(name, getattr(self, name), at_least=0, at_most=None)
        check_count("seed", self.seed, None, None)
        check_count("patience", self.patience, at_least=1, at_most=None)
        for name in ("lr", "clip"):
            value = check_number(name, getattr(self, name))
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, but is {value:g}.")
        check_number("dropped", self.dropped, 0.0, 1.0)
        check_width("ema", self.ema)

    @property
    def widths(self) -> tuple[float, float]:
        r"""The widths of the averages that are tracked."""

        return self.ema, self.ema / 2

    @property
    def autocast(self) -> torch.dtype | None:
        r"""The dtype of autocast, or `None` for none."""

        return torch.bfloat16 if self.precision == "bfloat16" else None

    def facts(self) -> dict[str, object]:
        r"""Returns the options as plain data."""

        return {field.name: getattr(self, field.name) for field in fields(self)}


def words_of(value: object) -> str:
    r"""Returns a function, or an object of settings, in words that tell it from others."""

    if isinstance(value, functools.partial):
        bound = [*map(repr, value.args), *(f"{n}={v!r}" for n, v in value.keywords.items())]
        return f"{words_of(value.func)}({', '.join(bound)})"
    if isinstance(value, nn.Module):
        return repr(value)
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"
