r"""The work on a shard: a public function on a range of samples, and a file with the results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from solvers import Solution
from solvers import get as get_solver
from solvers.catalogue import name_of as name_of_solver

from ..editing.verb import edit
from ..latents.encoding import encode
from ..likelihood import discrete_log_likelihood, log_likelihood
from ..likelihood.result import Likelihood
from ..models.score_model import ScoreModel
from ..sampling import decode, sample
from ..zoo import load
from .shards import Shard, name_of
from .store import Store

Made: TypeAlias = ScoreModel | str | Callable[[], ScoreModel]
VERBS: dict[str, Callable[..., Solution | Likelihood]] = {
    "sample": sample,
    "decode": decode,
    "encode": encode,
    "edit": edit,
    "likelihood": log_likelihood,
    "discrete_likelihood": discrete_log_likelihood,
}
KEYED = ("sample", "decode", "edit", "likelihood", "discrete_likelihood")  # with seed and index
STATES = ("x", "companion", "reached")
NUMBERS = ("calls", "accepted", "rejected", "log_density", "log_density_error")
DENSITY = ("nats", "stderr", "total", "calls", "derivatives")
NO_DENSITY = "nonfinite"  # as the solvers say it


@dataclass(frozen=True)
class Task:
    r"""Creates a task: one shard.

    Arguments:
        number: Its number.
        start: The index of its first sample.
        count: The number of samples.
        pieces: The number of batches.
        data: The data of these samples, or the solution that holds them, if the function takes data.
    """

    number: int
    start: int
    count: int
    pieces: int = 1
    data: Tensor | Solution | None = None


@dataclass(frozen=True)
class Done:
    r"""Creates the report on a task.

    Arguments:
        digest: The digest of the shard.
        failed: The number of samples that failed.
    """

    digest: str
    failed: int = 0


@dataclass
class ShardWork:
    r"""Creates the work of a job.

    Arguments:
        job: The identity of the job.
        verb: The name of the function.
        models: The models, or where they come from.
        conditions: The conditions of all samples.
        options: The options of the function.
        seed: The seed.
        store: The folder.
        cuda: Whether a GPU of CUDA does it.
    """

    job: str
    verb: str
    models: tuple[Made, ...]
    conditions: dict[str, Any]
    options: dict[str, Any]
    seed: int
    store: Store
    cuda: bool = False
    _made: tuple[ScoreModel, ...] | None = field(default=None, repr=False)

    def __call__(self, task: Task) -> Done:
        if self._made is None:  # once per worker
            self._made = tuple(made(model).given(**self.conditions) for model in self.models)
        try:
            shard = self._shard(self._made, task)
        except (MemoryError, RuntimeError) as error:
            if _is_memory(error):
                raise MemoryError(str(error)) from None
            raise
        self.store.write(name_of(task.number), shard.pack())
        return Done(shard.digest, len(shard.failed))

    def _shard(self, models: tuple[ScoreModel, ...], task: Task) -> Shard:
        parts: list[Mapping[str, Tensor]] = []
        failed: dict[int, str] = {}
        made: dict[str, Any] = {}
        index = torch.arange(task.start, task.start + task.count)
        for rows in index.tensor_split(min(task.pieces, task.count)):
            first = int(rows[0])
            result = self._result(models, task, rows)
            parts.append(tensors_of(result))
            made = made_of(result)
            failed |= {first + row: cause for row, cause in failures_of(result).items()}
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        place = (self.job, task.number, task.start, task.count, task.pieces)
        return Shard(*place, tensors, failed, made)

    def _result(
        self, models: tuple[ScoreModel, ...], task: Task, rows: Tensor
    ) -> Solution | Likelihood:
        some = [model.rows(rows) for model in models]
        keys = {"seed": self.seed, "first_index": int(rows[0])} if self.verb in KEYED else {}
        given = len(rows) if task.data is None else _rows(task.data, rows - task.start)
        function = VERBS[self.verb]
        return function(*some, given, **keys, on_failure="partial", **self.options)


def made(model: Made) -> ScoreModel:
    r"""Returns a model from itself, its file, or the function that makes it.

    Raises:
        TypeError: If the function makes something else.
    """

    found = load(model) if isinstance(model, str) else model
    found = found if isinstance(found, ScoreModel) else found()
    if not isinstance(found, ScoreModel):
        raise TypeError(
            f"model must be a score model, but the function makes a {type(found).__name__}."
        )
    return found


def tensors_of(result: Solution | Likelihood) -> dict[str, Tensor]:
    r"""Returns what is kept of a result, on the CPU."""

    if isinstance(result, Likelihood):
        found = {name: getattr(result, name) for name in DENSITY}
        found |= {f"budget.{name}": part for name, part in result.budget.items()}
    else:
        found = {name: getattr(result, name) for name in (*STATES, *NUMBERS)}
    return {name: value.detach().cpu() for name, value in found.items() if value is not None}


def made_of(result: Solution | Likelihood) -> dict[str, Any]:
    r"""Returns how a result was made, as JSON knows it."""

    if isinstance(result, Likelihood):
        return {"provenance": result.provenance}
    name = None if result.solver is None else name_of_solver(result.solver)
    times = result.times.tolist() if result.times.ndim == 1 else None
    return {"provenance": result.provenance, "times": times, "solver": name}


def solution_in(shard: Shard) -> Solution:
    r"""Returns the solution that a shard keeps, such as latents for the way back.

    Raises:
        ValueError: If the file cannot hold what the way back needs.
    """

    if shard.made.get("times") is None or shard.made.get("solver") is None:
        raise ValueError(
            "these samples were made on grids of their own, or by a solver that is not in the catalogue, so a "
            "file does not say the way back; pass the tensor and the options of the way back."
        )
    status = tuple(shard.failed.get(shard.start + row, "ok") for row in range(shard.count))
    tensors: dict[str, Any] = dict(shard.tensors)
    return Solution(
        times=torch.tensor(shard.made["times"], dtype=torch.float64),
        status=status,
        provenance=shard.made["provenance"],
        solver=get_solver(shard.made["solver"]),
        **tensors,
    )


def _rows(data: Tensor | Solution, rows: Tensor) -> Tensor | Solution:
    return data.rows(rows.tolist()) if isinstance(data, Solution) else data[rows]


def failures_of(result: Solution | Likelihood) -> dict[int, str]:
    r"""Returns the causes of failures by row."""

    found = {row: status for row, status in enumerate(result.status) if status != "ok"}
    if isinstance(result, Likelihood):
        return dict.fromkeys(result.nats.isnan().nonzero()[:, 0].tolist(), NO_DENSITY) | found
    return found


def _is_memory(error: BaseException) -> bool:
    r"""Whether memory did not suffice; PyTorch says so of the CPU in words alone."""

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(
        error
    )
