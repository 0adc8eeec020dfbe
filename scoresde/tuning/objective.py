r"""The metric that a search minimises, stored so that an interrupted search can continue."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from solvers import SolverError

from ..comparing.bench import Bench
from ..comparing.reference import rms
from ..files import Entry, check_entries, damaged, each, mapping, read_json, real, write_json
from ..runs.plan import Plan

KIND = "search of scoresde"
SAVE_EVERY = 5.0  # seconds
ENTRIES = {
    "setup": Entry("entries by name", mapping),
    "known": Entry(
        "numbers by what was measured, none of them NaN",
        lambda known: mapping(known) and each(real)(known),
    ),
}


@dataclass
class Objective:
    r"""Creates the mean error of a plan's samples, or their distance from data.

    Arguments:
        bench: The model, start and truth.
        metric: "error", or the name of a distance of the bench.
        file: A JSON file with earlier results.
        setup: The settings that a file must agree with.
        tick: A function that is called after each evaluation.
    """

    bench: Bench
    metric: str
    file: Path | None
    setup: Mapping[str, object]
    tick: Callable[[], object]
    known: dict[str, float] = field(default_factory=dict)
    measured: int = 0
    saved: float = 0.0

    def __post_init__(self) -> None:
        if self.file is None or not self.file.exists():
            return
        content = read_json(self.file, KIND)
        with damaged(self.file, "search"):
            check_entries(content, ENTRIES)
        if content["setup"] != self.setup:
            raise ValueError(f"{self.file} holds another search; pass another file, or remove it.")
        self.known = content["known"]

    def __call__(self, plan: Plan, count: int | None = None) -> float:
        r"""Returns the value of a plan for the first samples, or infinity if it fails."""

        key = json.dumps([count, plan.plain, plan.noise_levels])
        if key not in self.known:
            self.known[key] = self._measure(plan, count)
            self.measured += 1
            if time.monotonic() > self.saved + SAVE_EVERY:
                self.save()
        self.tick()
        return self.known[key]

    def save(self) -> None:
        r"""Writes all known values."""

        self.saved = time.monotonic()
        if self.file is not None:
            write_json(self.file, KIND, {"setup": self.setup, "known": self.known})

    def _measure(self, plan: Plan, count: int | None) -> float:
        whole = self.bench.shape[0]
        few = self.bench.resized(min(count or whole, whole))
        try:
            x = few.run(plan=plan).x
        except (SolverError, ValueError):
            return torch.inf
        value = self.value(x)
        return value if value == value else torch.inf

    def value(self, x: Tensor) -> float:
        r"""Returns the value of some samples."""

        if self.metric == "error":
            return rms(x, self.bench.reference().x[: len(x)]).mean().item()
        assert self.bench.data is not None
        found = self.bench.distances[self.metric](x.to(self.bench.data), self.bench.data)
        return found[0] if isinstance(found, tuple) else found
