r"""Plans that hold for several models, such as one network under a range of guidance scales or labels."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from ..comparing.bench import Bench, bind
from ..jobs.start import Workers
from ..metrics import Distance
from ..models.checks import check_alike
from ..models.score_model import ScoreModel
from ..runs.continued import describe_setup
from ..runs.options import Options
from ..runs.plan import Plan
from ..runs.takes import check_model
from .objective import Measure, Objective

Models: TypeAlias = ScoreModel | Mapping[Any, ScoreModel]  # by name, or a number such as a scale


class Valued(Protocol):
    r"""A function from plans to their values, for one model or several."""

    @property
    def measure(self) -> Measure:
        r"""The measure of a plan, on the first model."""

    @property
    def bench(self) -> Bench:
        r"""The first model, its start and truth."""

    @property
    def parts(self) -> Sequence[Objective]:
        r"""The objective of each model."""

    def __call__(self, plans: Sequence[Plan], count: int | None = None) -> list[float]:
        r"""Returns the values of plans for the first samples."""


@dataclass
class Together:
    r"""Creates the objective of a plan for several models: the mean of errors relative to the catalogue's best.

    .. math:: \frac{1}{K} \sum_{k=1}^K \frac{e_k(p)}{\min_{q \in Q} e_k(q)}

    Here :math:`e_k` is the error on the k-th model, and Q are the plans that are measured first, those of the
    catalogue. So a model with large errors, such as that with the largest scale of guidance, counts as much as
    the others. Distances to data, which may be 0 or below, are averaged as they are.

    Arguments:
        parts: The objective of each model.
    """

    parts: Sequence[Objective]
    units: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in self.parts:
            part.tick = partial(_share, part.tick, len(self.parts))

    def __call__(self, plans: Sequence[Plan], count: int | None = None) -> list[float]:
        r"""Returns the values of plans for the first samples, or infinity for those that fail."""

        rows = [part(plans, count) for part in self.parts]
        if not self.units:
            known = self.measure.metric == "error"
            least = [min(row) if known else 1.0 for row in rows]
            self.units = [unit if 0 < unit < float("inf") else 1.0 for unit in least]
        return [
            sum(value / unit for value, unit in zip(values, self.units, strict=True)) / len(rows)
            for values in zip(*rows, strict=True)
        ]

    @property
    def measure(self) -> Measure:
        r"""The measure of a plan, on the first model."""

        return self.parts[0].measure

    @property
    def bench(self) -> Bench:
        r"""The first model, its start and truth."""

        return self.measure.bench


def _share(tick: Callable[[float], object], parts: int, done: float) -> None:
    r"""Counts what one of several parts has done."""

    tick(done / parts)


def workers_of(parts: Sequence[Objective]) -> ExitStack:
    r"""Returns the workers of several objectives, as one context."""

    stack = ExitStack()
    for part in parts:
        stack.enter_context(part.spread)
    return stack


def models_of(model: Models) -> dict[str, ScoreModel]:
    r"""Returns models by name, after checking that a plan can be for all of them; one alone has no name."""

    if not isinstance(model, Mapping):
        check_model(model)
        return {"": model}
    if not model:
        raise ValueError("model must hold at least one model, but is empty.")
    found = {str(name): one for name, one in model.items()}
    if len(found) < len(model):
        raise ValueError(f"names of models must differ as text, but are {list(model)}.")
    for one in found.values():
        check_model(one)
    check_alike("model", list(found.values()))
    return found


def benches_of(
    models: Mapping[str, ScoreModel],
    options: Options,
    shape: tuple[int, ...],
    seed: int,
    tolerance: float,
    distances: dict[str, Distance],
    data: Tensor | None,
) -> dict[str, Bench]:
    r"""Returns the benches of all models, by name."""

    found = {}
    for name, model in models.items():
        bound, common = bind(model, options, shape[0])
        found[name] = Bench(bound, shape, seed, tolerance, distances, data, common)
    return found


def objectives_of(
    benches: Mapping[str, Bench],
    metric: str,
    data: Tensor | None,
    setup: Mapping[str, object],
    file: str | Path | None,
    tick: Callable[[float], object],
    workers: Workers,
) -> list[Objective]:
    r"""Returns the objectives of all models, each with its own file."""

    found = []
    for number, bench in enumerate(benches.values()):
        where = None if file is None else Path(file)
        if where is not None and number:
            where = where.with_stem(f"{where.stem}_{number + 1}")
        whole = {**describe_setup(bench.model, data, bench.options), **setup}
        found.append(Objective(Measure(bench, metric), where, whole, tick, workers))
    return found
