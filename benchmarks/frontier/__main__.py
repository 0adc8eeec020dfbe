r"""Energy distance to data and error against calls, for members that need no training.

Three problems, those of `benchmarks.distance`. For each member and budget the grid is chosen by energy distance on
one seed; what is reported comes from another seed: the energy distance, the error to the exact flow from the same
noise, and by how much the distance is smaller than that of the best of the catalogue from the same noise. Standard
errors are those of a jackknife over ten parts of the samples.

    python -m benchmarks.frontier [FILE ...] [--problems NAME ...] [--budgets N ...] [--only MEMBER ...]
"""

import argparse
import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.comparing.reference import rms
from scoresde.metrics import energy_distance
from scoresde.models.checks import model_dtype

from ..distance import GRIDS, PROBLEMS, T_MIN
from ..report import Row, load, machine, show, write

Member = Callable[[ss.ScoreModel, Tensor, int, str], Tensor]
BUDGETS = (5, 6, 8, 10, 15)
CHOICE, HELD_OUT = 0, 1
SIZES = {"mixture": (500, 2000), "digits": (250, 1000), "trained": (250, 500)}  # of the seeds
PARTS = 10
DISTANCE, ERROR = "energy distance x 1000", "its standard error"
GAIN, GAIN_ERROR = "below the catalogue by", "with standard error"
WITHOUT = "without each part"
TOOLS = ("__main__", "catalogue", "tools")


@dataclass
class Problem:
    r"""A model, its data, and noise from two seeds."""

    name: str

    @cached_property
    def model(self) -> ss.ScoreModel:
        return PROBLEMS[self.name][0]()

    @cached_property
    def data(self) -> Tensor:
        return PROBLEMS[self.name][1](self.model)

    def noise(self, seed: int, count: int) -> Tensor:
        shape = (count, *self.data.shape[1:])
        dtype = model_dtype(self.model) if self.name == "trained" else torch.float64
        return self.model.process.prior_sample(shape, seed=seed, dtype=dtype)

    @cached_property
    def flow(self) -> Tensor:
        r"""Where the flow leads the noise of the held-out seed."""

        start = self.noise(HELD_OUT, SIZES[self.name][1])
        options = {"t_min": T_MIN, "batch_size": 250}
        return ss.decode(self.model, start, rtol=1e-4, atol=1e-4, **options).x

    def run(self, member: Member, seed: int, count: int, calls: int, grid: str) -> Tensor:
        r"""Returns the samples of a member, which must keep within its budget."""

        parts = []
        for z in self.noise(seed, count).split(250):
            with solvers.counting() as counter:
                parts.append(member(self.model, z, calls, grid))
            if counter.total > calls:
                raise RuntimeError(f"{counter.total} calls are more than {calls}.")
        return torch.cat(parts)

    def distance(self, x: Tensor) -> float:
        return 1e3 * energy_distance(x, self.data) if bool(x.isfinite().all()) else math.inf

    def row(self, name: str, x: Tensor, **said: object) -> Row:
        return {"problem": self.name, "member": name, **said,
                DISTANCE: self.distance(x), ERROR: None, GAIN: None, GAIN_ERROR: None,
                "error": rms(x, self.flow).mean().item(),
                WITHOUT: [self.distance(part) for part in without_each(x)]}  # fmt: skip

    def measure(self, name: str, member: Member, grids: Sequence[str], calls: int) -> Row | None:
        r"""Returns the row of a member on the grid that is best on the other seed."""

        found, (few, count) = {}, SIZES[self.name]
        for grid in grids:
            try:
                found[grid] = self.distance(self.run(member, CHOICE, few, calls, grid))
            except ValueError:  # it has no such run
                continue
        if not found:
            return None
        grid = min(found, key=found.__getitem__)
        x = self.run(member, HELD_OUT, count, calls, grid)
        return self.row(name, x, calls=calls, grid=grid)


def parts_of(module: ModuleType) -> Iterator[tuple[str, Member, Sequence[str]]]:
    r"""Yields the members of a file, with the grids to choose from."""

    members = getattr(module, "MEMBERS", None) or {module.__name__.rpartition(".")[2]: module.run}
    for name, member in members.items():
        yield name, member, getattr(module, "GRIDS", GRIDS)


def compared(rows: list[Row]) -> list[Row]:
    r"""Returns the rows with standard errors, and their gains over the best of the catalogue."""

    ours = set(importlib.import_module(f"{__package__}.catalogue").NAMES)
    for row in rows:
        values = torch.tensor(row[WITHOUT], dtype=torch.float64)
        row[ERROR] = spread(values)
        rivals = [r for r in rows if r["member"] in ours
                  and (r["problem"], r["calls"]) == (row["problem"], row["calls"])]  # fmt: skip
        if rivals and row["member"] not in ours:
            best = min(rivals, key=lambda r: r[DISTANCE])
            row[GAIN] = best[DISTANCE] - row[DISTANCE]
            row[GAIN_ERROR] = spread(torch.tensor(best[WITHOUT]) - values)
    return rows


def without_each(x: Tensor) -> list[Tensor]:
    r"""Returns the samples without their first tenth, without their second, and so on."""

    parts = x.chunk(PARTS)
    return [torch.cat([*parts[:i], *parts[i + 1 :]]) for i in range(PARTS)]


def spread(values: Tensor) -> float:
    r"""Returns the jackknife's standard error, from the figures without each part."""

    return (values.std(correction=0) * (len(values) - 1) ** 0.5).item()


def known() -> list[Row]:
    r"""Returns the rows of earlier runs."""

    try:
        rows = load("frontier")
    except FileNotFoundError:
        return []
    return [{**row, WITHOUT: [float(v) for v in row[WITHOUT].split()]} for row in rows]


def record(new: list[Row]) -> None:
    r"""Writes rows among those of earlier runs, which they replace, and prints them."""

    there = {(r["problem"], r["member"], r["calls"]) for r in new}
    rows = [r for r in known() if (r["problem"], r["member"], r["calls"]) not in there]
    rows = compared([*rows, *new])
    settings = {"seed": HELD_OUT, "seed_of_grid": CHOICE}
    write("frontier", rows, {"command": "python -m benchmarks.frontier", **machine(), **settings})
    show([{column: row[column] for column in row if column != WITHOUT} for row in new])


def options() -> argparse.Namespace:
    paths = importlib.import_module(__package__).__path__
    files = [module.name for module in pkgutil.iter_modules(paths)]
    names = ["catalogue", *(name for name in files if name not in TOOLS)]
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", default=names)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--budgets", nargs="*", type=int, default=BUDGETS)
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    for problem in map(Problem, asked.problems):
        if not any(row["problem"] == problem.name for row in known()):
            record([problem.row("the flow itself", problem.flow, calls=None, grid=None)])
        for file in asked.files:
            for name, member, grids in parts_of(importlib.import_module(f"{__package__}.{file}")):
                if asked.only and name not in asked.only:
                    continue
                made = [problem.measure(name, member, grids, calls) for calls in asked.budgets]
                record([row for row in made if row is not None])


if __name__ == "__main__":
    main()
