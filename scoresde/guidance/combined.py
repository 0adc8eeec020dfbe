r"""What guidances share: a model whose denoised data is made of that of others."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..models.score_model import ScoreModel, model_times
from .guided import Guided


class Noisy(NamedTuple):
    r"""Where a guided model is asked.

    Arguments:
        x: The noisy data in units of the data, :math:`X = x_t / \alpha`, with shape (B, \*).
        level: Its noise level :math:`s = \sigma / \alpha`.
        alpha: Its scale.
        state: The noisy data :math:`x_t`, with shape (B, \*).
        time: Its time, with shape (B,), as models get it.
        held: What the model holds, on the device of the data.
    """

    x: Tensor
    level: Scalar
    alpha: Scalar
    state: Tensor
    time: Tensor
    held: Mapping[str, Tensor]


class Several(Guided):
    r"""Abstract model of several others that share a process; each row by itself.

    Arguments:
        models: The models, of which the first is asked for what is known of the data.
        name: What it is called.

    Attributes:
        roles: What pictures call the models: those of :data:`scoresde.models.BASES` are what guidance starts from,
            those of :data:`scoresde.models.OTHERS` what it leads away from.
    """

    roles: Sequence[str] = ("model", "other")

    def __init__(self, models: Sequence[ScoreModel], name: str) -> None:
        super().__init__()
        first = models[0]
        for other in models[1:]:
            if other.process != first.process:
                raise ValueError(
                    f"models must share a process, but have {first.process} and {other.process}."
                )
        self.models, self.name = torch.nn.ModuleList(models), name
        self.resemble(first)
        self.guided, self.cost = True, sum(model.cost for model in models)
        self.differentiable = all(model.differentiable for model in models)
        self.bound_names = tuple(dict.fromkeys(n for model in models for n in model.bound_names))
        free = dict.fromkeys(n for model in models for n in model.conditions)
        self.conditions = tuple(name for name in free if name not in self.bound_names)
        named = [model.fingerprint or type(model).__name__ for model in models]
        others = f" with {', '.join(named[1:])}" if named[1:] else ""
        self.fingerprint = f"{named[0]} guided by {name}{others}"

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.models))})"

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return dict(zip(self.roles, self.each, strict=False))

    @abstractmethod
    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        r"""Returns the same of other models, for some rows."""

    def rows(self, index: Tensor) -> ScoreModel:
        return self.of([model.rows(index) for model in self.each], index)

    @property
    def each(self) -> list[ScoreModel]:
        r"""The models."""

        return list(self.models)  # type: ignore[arg-type]

    def check_condition(self, name: str, value: Tensor) -> None:
        for model in self.each:
            if name in model.conditions:
                model.check_condition(name, value)


class Combined(Several):
    r"""Abstract model whose denoised data is a function of that of several others."""

    @abstractmethod
    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        r"""Returns the denoised data, with shape (B, *).

        Arguments:
            denoised: That of each model.
            noisy: Of which noisy data.
        """

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        none, one = torch.zeros_like(times), torch.ones_like(times)
        columns = []
        for model in self.each:
            mine = {name: v for name, v in condition.items() if name in model.conditions}
            columns.append(model.combine(times, none, one, scale, x, **mine))
        alpha, level = self.process.scales(times)[0], torch.exp(-self.process.log_snr(times))
        held = self.held_on(x.device)

        def bind(fields: tuple[StateField, ...], time: Tensor, a: Scalar, b: Scalar, scale: Scalar,
                 to_data: Scalar, alpha: Scalar, level: Scalar) -> StateField:  # fmt: skip
            def combined(X: Tensor) -> Tensor:
                noisy = Noisy(to_data * X, level, alpha, scale * X, time, held)
                D = self.combined([field(X) for field in fields], noisy)
                return a * scale * X + b * D

            return combined

        numbers = (scalars(value, x) for value in (a, b, scale, scale / alpha, alpha, level))
        told = model_times(self.process, times, x)
        return [bind(*row) for row in zip(zip(*columns, strict=True), told, *numbers, strict=True)]


def row_sum(x: Tensor) -> Tensor:
    r"""Returns the sum of each row, in a shape that broadcasts with it, in float64."""

    return x.double().flatten(1).sum(1).reshape(-1, *(1,) * (x.ndim - 1))
