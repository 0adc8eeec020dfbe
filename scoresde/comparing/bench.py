r"""A bench: one model, initial noise and reference, on which any number of runs is measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypedDict, Unpack

import torch
from torch import Tensor

import solvers
from solvers import Solution, SolverError, counting
from solvers.methods.renoise import Langevin

from ..metrics import Distance, floor, with_error
from ..models.checks import model_device, model_dtype
from ..models.score_model import ScoreModel
from ..runs.health import ROWS, warn_of_health
from ..runs.options import Ending, Options, RunOptions
from ..runs.plan import Plan
from ..runs.takes import Takes, split
from ..sampling import sample
from .cells import TOLERANCE, Cell
from .costs import measured
from .reference import Reference, flow_reference, noisy_reference, rms
from .row import Row

KINDS = {False: "flow", True: "sde"}
BENCH = Takes("here, where it is measured or searched", "t_min", "seed", "first_index", "batch_size", "max_calls",
              "dtype", "device", "max_step", "first_step", Ending, words="cannot be passed")  # fmt: skip


class _Kind(TypedDict):
    r"""The dtype and device of states."""

    dtype: torch.dtype
    device: torch.device | str | None


@dataclass
class Bench:
    r"""Creates the common setup of all runs of a measurement.

    Arguments:
        model: The model, with its conditions bound.
        shape: The shape of the samples.
        seed: The seed of their noise.
        tolerance: The tolerance of the reference.
        distances: Distances to the data.
        data: The data, if there is any.
        options: Options of every run.
        errors: Whether to compare samples with exact ones.
    """

    model: ScoreModel
    shape: tuple[int, ...]
    seed: int
    tolerance: float
    distances: dict[str, Distance] = field(default_factory=dict)
    data: Tensor | None = None
    options: Options = field(default_factory=dict)
    errors: bool = True
    references: dict[bool, Reference] = field(default_factory=dict)
    failures: dict[bool, str] = field(default_factory=dict)

    def reference(self, noisy: bool = False) -> Reference:
        r"""Returns the samples of the flow, or of the SDE, which are computed on first use."""

        if noisy not in self.references:
            start = (self.model, self.shape, self.seed)
            self.references[noisy] = (
                noisy_reference(*start, self.options)
                if noisy
                else flow_reference(*start, self.tolerance, self.options)
            )
        return self.references[noisy]

    def resized(self, count: int, seed: int | None = None) -> "Bench":
        r"""Returns the bench for another number of samples; bound conditions are repeated.

        Arguments:
            count: The number of samples.
            seed: Another seed of their noise, or `None` to keep the seed.
        """

        model = self.model.rows(torch.arange(count) % self.shape[0])
        shape, seed = (count, *self.shape[1:]), self.seed if seed is None else seed
        return replace(self, model=model, shape=shape, seed=seed, references={})

    @property
    def words(self) -> dict[str, dict[str, object]]:
        r"""Facts about the references, for the notes."""

        return {
            KINDS[noisy]: {"made": r.made, "calls": r.calls, **spread(r.gap), **r.halved}
            for noisy, r in self.references.items()
        } | {KINDS[noisy]: {"failed": words} for noisy, words in self.failures.items()}

    def look(self) -> None:
        r"""Warns of a network that is random, or couples the rows of a batch."""

        few = (min(self.shape[0], ROWS), *self.shape[1:])
        warn_of_health(self.model, torch.zeros(few, **self._kind))

    def start(self) -> Tensor:
        r"""Returns the states from which all runs start, with shape (B, *)."""

        first = self.options.get("first_index", 0)
        prior = self.model.process.prior_sample
        return prior(self.shape, seed=self.seed, first_index=first, **self._kind)

    @property
    def _kind(self) -> _Kind:
        dtype = self.options.get("dtype") or model_dtype(self.model)
        return {"dtype": dtype, "device": self.options.get("device") or model_device(self.model)}

    def run(self, **options: Unpack[RunOptions]) -> Solution:
        r"""Returns the samples of a solver."""

        plan = options.get("plan")
        said = plan.options if isinstance(plan, Plan) else {}  # such as t_min, which the plan sets
        common = {name: value for name, value in self.options.items() if name not in said}
        return sample(self.model, self.shape, seed=self.seed, **{**common, **options})

    def floors(self) -> dict[str, tuple[float, float]]:
        r"""Returns the distances between parts of the data, with standard deviations."""

        if self.data is None:
            return {}
        size, data = self.shape[0], self.data
        return self._each(lambda distance: floor(data, size, distance=distance))

    def distances_of(self, x: Tensor) -> dict[str, tuple[float, float]]:
        r"""Returns the distances of samples from the data, with standard errors."""

        if self.data is None:
            return {}
        data = self.data
        return self._each(lambda distance: with_error(distance, x.to(data), data))

    def _each(
        self, measure: Callable[[Distance], tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        r"""Measures each distance; the message names one that fails or is not finite."""

        found = {}
        for name, distance in self.distances.items():
            try:
                found[name] = measure(distance)
            except Exception as reason:  # possibly from the user's own function
                raise ValueError(f"metric {name!r} failed: {reason}") from reason
            if not math.isfinite(found[name][0]):
                raise ValueError(f"metric {name!r} is {found[name][0]} for these samples.")
        return found

    def prepare(self, todo: Sequence[Cell]) -> None:
        r"""Computes the references that cells need, so that those who measure the cells share them."""

        for cell in todo:
            if self.errors and not cell.refusal:
                with suppress(ValueError, LookupError, ArithmeticError):  # which rows report
                    self._exact(cell)

    @property
    def parts(self) -> dict[str, object]:
        r"""What workers need, by the words for it in messages."""

        own = {f"metric {name!r}": distance for name, distance in self.distances.items()}
        return {"the model": self.model, **own}

    def exact_distances(self) -> dict[str, tuple[float, float]]:
        r"""Returns the distances of the exact flow's samples, unless the flow fails."""

        exact = self._exact(Cell("", "", 0, {"solver": "ddim"}))
        return {} if exact is None else self.distances_of(exact.x)

    def row(self, cell: Cell) -> Row:
        r"""Measures a cell; a failure becomes the status of its row."""

        empty = Row(cell.solver, cell.grid, cell.budget, _plain(cell.options), cell.stochastic)
        if cell.refusal:
            return replace(empty, status=cell.refusal)
        try:
            return self._measure(cell, empty)
        except (SolverError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            return replace(empty, status=str(error).splitlines()[0])

    def __call__(self, cell: Cell) -> Row:
        r"""Measures a cell, as the work of an engine."""

        return self.row(cell)

    @property
    def cuda(self) -> bool:
        r"""Whether a GPU of CUDA does it, which an engine may have to find."""

        return self._device.type == "cuda"

    def _measure(self, cell: Cell, row: Row) -> Row:
        exact = self._exact(cell) if self.errors else None
        batches = math.ceil(self.shape[0] / (self.options.get("batch_size") or self.shape[0]))
        with measured(self._device) as cost, counting() as counter:
            s = self.run(on_failure="partial", **cell.options)
        most = int(s.calls.max())
        row = replace(
            row,
            calls=s.calls.double().mean().item(),
            most_calls=most,
            backward=counter.backward / batches,
            rejected=s.rejected.double().mean().item(),
            seconds=cost.seconds,
            mebibytes=cost.mebibytes,
        )
        bad = [i for i, status in enumerate(s.status) if status != "ok"]
        bad = bad or (~s.x.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
        if cell.grid not in (TOLERANCE, "plan") and most > cell.budget:
            return replace(row, status=f"took {most} calls, more than {cell.budget:g}")
        if bad:
            words = f"{len(bad)} of {len(s.x)} samples failed ({s.status[bad[0]]}), first {bad[0]}"
            return replace(row, status=words)
        if exact is not None:
            row = replace(row, error=spread(rms(s.x, exact.x)))
        try:
            return replace(row, distances=self.distances_of(s.x))
        except ValueError as reason:
            return replace(row, status=str(reason).splitlines()[0])

    def _exact(self, cell: Cell) -> Reference | None:
        r"""The exact samples for a cell, if there are any; a failure is kept for the notes."""

        if not _has_limit(cell) or cell.stochastic in self.failures:
            return None
        try:
            return self.reference(cell.stochastic)
        except (SolverError, RuntimeError) as error:
            self.failures[cell.stochastic] = str(error).splitlines()[0]
            return None

    @property
    def _device(self) -> torch.device:
        parameter = next(self.model.parameters(), None)
        own = torch.device("cpu") if parameter is None else parameter.device
        return torch.device(self.options.get("device") or own)


def sample_shape(model: ScoreModel, data: Tensor | None, count: int) -> tuple[int, ...]:
    r"""Returns the shape of `count` samples, from the model or the data."""

    if model.shape is None and data is None:
        raise ValueError("this model does not know the shape of a sample; pass data=.")
    known = model.shape if model.shape is not None or data is None else data.shape[1:]
    return (count, *(known or ()))


def bind(
    model: ScoreModel, options: Mapping[str, object], count: int
) -> tuple[ScoreModel, Options]:
    r"""Returns the model with the conditions among the keywords bound, and the remaining options.

    Raises:
        ValueError, TypeError: If one is invalid, or is itself measured or searched.
    """

    bound, settings = split(model, options, count, BENCH)
    process = model.process
    if settings.t_min is not None and not process.t_min <= settings.t_min < process.t_max:
        raise ValueError(
            f"t_min must lie in [{process.t_min:.4g}, {process.t_max:.4g}), but is {settings.t_min}."
        )
    if not model.process.has_levels:  # which has no clean data
        options = {"denoise": False, **options}
    return bound, {n: value for n, value in options.items() if n in BENCH.names and n != "seed"}


def spread(values: Tensor) -> dict[str, float]:
    r"""Returns the median, the 0.9 quantile and the maximum of some values."""

    return {
        "median": values.quantile(0.5).item(),
        "q90": values.quantile(0.9).item(),
        "max": values.max().item(),
    }


def _has_limit(cell: Cell) -> bool:
    r"""Whether more steps converge to the flow, or to the reverse SDE on its Brownian path."""

    plan = cell.options.get("plan")
    options = plan.options if isinstance(plan, Plan) else cell.options
    solver = solvers.get(options["solver"])
    if not cell.stochastic:
        return True
    plain = options.get("eta", 1.0) == 1 and options.get("eta_convention") in (None, "canonical")
    known = solver.takes_eta and solver.profile == "constant" and not isinstance(solver, Langevin)
    return plain and known and options.get("noise") == "path"


def _plain(options: Options) -> Options:
    plan = options.get("plan")
    return {"plan": str(plan)} if plan is not None else options
