r"""The metric that a search minimises, stored so that an interrupted search can continue."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from solvers import SolverError

from ..comparing.bench import Bench
from ..comparing.reference import rms
from ..files import Entry, check_entries, damaged, each, mapping, read_json, real, write_json
from ..jobs.spread import Spread
from ..jobs.start import Workers
from ..runs.continued import check_same
from ..runs.plan import Plan

KIND = "search of scoresde"
Asked: TypeAlias = tuple[Plan, int | None]  # a plan, and the number of samples, or all
SAVE_EVERY = 5.0  # seconds
ENTRIES = {
    "setup": Entry("entries by name", mapping),
    "known": Entry(
        "numbers by what was measured, none of them NaN",
        lambda known: mapping(known) and each(real)(known),
    ),
}


@dataclass(frozen=True)
class Measure:
    r"""Creates the mean error of a plan's samples, or their distance from data.

    Arguments:
        bench: The model, start and truth.
        metric: "error", or the name of a distance of the bench.
    """

    bench: Bench
    metric: str

    def __call__(self, asked: Asked) -> float:
        r"""Returns the value of a plan for the first samples, or infinity if it fails."""

        plan, count = asked
        whole = self.bench.shape[0]
        few = self.bench.resized(min(count or whole, whole))
        try:
            x = few.run(plan=plan).x
        except (SolverError, ValueError):
            return torch.inf
        value = self.value(x)
        return value if value == value else torch.inf

    @property
    def cuda(self) -> bool:
        r"""Whether a GPU of CUDA does it, which an engine may have to find."""

        return self.bench.cuda

    def value(self, x: Tensor) -> float:
        r"""Returns the value of some samples."""

        if self.metric == "error":
            return rms(x, self.bench.reference().x[: len(x)]).mean().item()
        assert self.bench.data is not None
        found = self.bench.distances[self.metric](x.to(self.bench.data), self.bench.data)
        return found[0] if isinstance(found, tuple) else found


@dataclass
class Objective:
    r"""Creates the function that a search minimises, which measures no plan twice.

    Arguments:
        measure: The measure of a plan.
        file: A JSON file with earlier results.
        setup: The settings that a file must agree with.
        tick: A function that is called with the number of plans whose values are known.
        workers: The workers that share the plans.
    """

    measure: Measure
    file: Path | None
    setup: Mapping[str, object]
    tick: Callable[[float], object]
    workers: Workers = None
    known: dict[str, float] = field(default_factory=dict)
    measured: int = 0
    saved: float = 0.0

    def __post_init__(self) -> None:
        if self.file is None or not self.file.exists():
            return
        content = read_json(self.file, KIND)
        with damaged(self.file, "search"):
            check_entries(content, ENTRIES)
        check_same(self.file, "search", content["setup"], self.setup, self.bench.model)
        self.known = content["known"]

    @property
    def bench(self) -> Bench:
        r"""The model, start and truth."""

        return self.measure.bench

    @property
    def parts(self) -> Sequence["Objective"]:
        r"""The objectives of each model: this one."""

        return (self,)

    @cached_property
    def spread(self) -> Spread[Asked, float]:
        r"""The workers."""

        return Spread(self.measure, self.workers, lambda asked: str(asked[0]), self.bench.parts)

    def __call__(self, plans: Sequence[Plan], count: int | None = None) -> list[float]:
        r"""Returns the values of plans for the first samples, or infinity for those that fail."""

        keys = [_key(plan, count) for plan in plans]
        unknown = {
            key: plan for key, plan in zip(keys, plans, strict=True) if key not in self.known
        }
        self.tick(len(plans) - len(unknown))
        if unknown and self.measure.metric == "error":
            self.bench.reference()  # which workers share
        for (plan, _), value in self.spread((plan, count) for plan in unknown.values()):
            self.known[_key(plan, count)] = value
            self.measured += 1
            self.tick(1)
            if time.monotonic() > self.saved + SAVE_EVERY:
                self.save()
        return [self.known[key] for key in keys]

    def save(self) -> None:
        r"""Writes all known values."""

        self.saved = time.monotonic()
        if self.file is not None:
            write_json(self.file, KIND, {"setup": self.setup, "known": self.known})


def _key(plan: Plan, count: int | None) -> str:
    return json.dumps([count, plan.plain, plan.noise_levels])
