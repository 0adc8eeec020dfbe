r"""What guidances share: a model whose denoised data is made of that of others."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, align, scalars

from ..models import ScoreModel, model_times
from .guided import Guided


class Several(Guided):
    r"""Abstract model of several others that share a process; each row by itself.

    Arguments:
        models: The models, of which the first is asked for what is known of the data.
        name: What it is called.

    Attributes:
        roles: What pictures call the models.
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
    def combined(self, denoised: list[Tensor], x: Tensor, level: Scalar) -> Tensor:
        r"""Returns the denoised data, with shape (B, *).

        Arguments:
            denoised: That of each model.
            x: The noisy data in units of the data, with shape (B, *).
            level: Its noise level.
        """

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        none, one = torch.zeros_like(times), torch.ones_like(times)
        columns = []
        for model in self.each:
            mine = {name: v for name, v in condition.items() if name in model.conditions}
            columns.append(model.combine(times, none, one, scale, x, **mine))
        level = torch.exp(-self.process.log_snr(times))
        to_data = scale / self.process.scales(times)[0]

        def bind(fields: tuple[StateField, ...], a: Scalar, b: Scalar, scale: Scalar, to_data: Scalar,
                 level: Scalar) -> StateField:  # fmt: skip
            def combined(X: Tensor) -> Tensor:
                D = self.combined([field(X) for field in fields], to_data * X, level)
                return a * scale * X + b * D

            return combined

        numbers = (scalars(value, x) for value in (a, b, scale, to_data, level))
        rows = zip(zip(*columns, strict=True), *numbers, strict=True)
        return [bind(*row) for row in rows]

    def noisy(self, x: Tensor, level: Scalar) -> tuple[Tensor, Tensor]:
        r"""Returns noisy data and its times, with shapes (B, \*) and (B,), for functions of these.

        Arguments:
            x: The noisy data in units of the data, with shape (B, \*).
            level: Its noise level.
        """

        levels = torch.as_tensor(level).detach().double().cpu().reshape(-1)
        times = self.process.time(-levels.log())
        times = times.expand(len(x))
        alpha = align(self.process.scales(times)[0].to(x), x)
        return alpha * x, model_times(self.process, times[None], x)[0]


def row_sum(x: Tensor) -> Tensor:
    r"""Returns the sum of each row, in a shape that broadcasts with it, in float64."""

    return x.double().flatten(1).sum(1).reshape(-1, *(1,) * (x.ndim - 1))
