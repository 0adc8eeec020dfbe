r"""What a guidance is: a rule by which the denoised data of some models becomes that of one.

A rule is a frozen dataclass. Its fields are all it knows: tensors in them, and those in dictionaries and lists,
belong to samples, with leading size B or 1, unless their shape is (); numbers and functions are its settings.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, count
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..models.by_sample import changed, of_rows, tensors_in
from ..models.conditions import rows_of
from ..models.score_model import ScoreModel, model_times
from ..processes.process import Process
from .words import told, words_of


class Noisy(NamedTuple):
    r"""Where a guided model is asked.

    Arguments:
        x: The noisy data in units of the data, :math:`X = x_t / \alpha`, with shape (B, \*).
        level: Its noise level :math:`s = \sigma / \alpha`.
        alpha: Its scale.
        state: The noisy data :math:`x_t`, with shape (B, \*).
        time: Its time, with shape (B,), as models get it.
    """

    x: Tensor
    level: Scalar
    alpha: Scalar
    state: Tensor
    time: Tensor


class Place(NamedTuple):
    r"""One time at which a guided model is asked for :math:`a x + b D`, with x = scale X.

    Its numbers multiply states: each is one number, or one per row.
    """

    time: Tensor
    a: Scalar
    b: Scalar
    scale: Scalar
    to_data: Scalar
    alpha: Scalar
    level: Scalar

    def noisy(self, X: Tensor) -> Noisy:
        r"""Returns the noisy data of a state."""

        return Noisy(self.to_data * X, self.level, self.alpha, self.scale * X, self.time)

    def answer(self, X: Tensor, D: Tensor) -> Tensor:
        r"""Returns what is asked for, from the denoised data."""

        return self.a * self.scale * X + self.b * D


class Asked(NamedTuple):
    r"""What is asked of a guided model, as :meth:`scoresde.ScoreModel.combine` has it, with its models."""

    models: Sequence[ScoreModel]
    times: Tensor
    a: Tensor
    b: Tensor
    scale: Tensor
    x: Tensor
    condition: Mapping[str, Tensor]

    @property
    def process(self) -> Process:
        r"""The process, which all models share."""

        return self.models[0].process

    @property
    def levels(self) -> Tensor:
        r"""The noise levels :math:`\sigma / \alpha`, with the shape of the times."""

        return torch.exp(-self.process.log_snr(self.times))

    @property
    def places(self) -> list[Place]:
        r"""Each of the times, with its numbers."""

        alpha = self.process.scales(self.times)[0]
        numbers = (self.a, self.b, self.scale, self.scale / alpha, alpha, self.levels)
        columns = (scalars(value, self.x) for value in numbers)
        told = model_times(self.process, self.times, self.x)
        return [Place(*row) for row in zip(told, *columns, strict=True)]

    def mine(self, number: int) -> dict[str, Tensor]:
        r"""Returns the conditions that one of the models takes."""

        known = self.models[number].conditions
        return {name: value for name, value in self.condition.items() if name in known}

    def of(self, number: int) -> Sequence[StateField]:
        r"""Returns the same of one of the models."""

        times, a, b, scale, x = self[1:6]
        return self.models[number].combine(times, a, b, scale, x, **self.mine(number))

    def denoised(self) -> list[tuple[StateField, ...]]:
        r"""Returns what each of the models takes for the data, at each of the times."""

        asked = self._replace(a=torch.zeros_like(self.times), b=torch.ones_like(self.times))
        return list(zip(*(asked.of(k) for k in range(len(self.models))), strict=True))

    def steps(self, index: Tensor) -> Self:
        r"""Returns the same at some of the times."""

        times, a, b, scale = (value[index] for value in self[1:5])
        return self._replace(times=times, a=a, b=b, scale=scale)

    def rows(self, index: Tensor) -> Self:
        r"""Returns the same for some rows, whose times differ."""

        times, a, b, scale = (value[:, index] for value in self[1:5])
        return self._replace(
            models=[model.rows(index) for model in self.models],
            times=times,
            a=a,
            b=b,
            scale=scale,
            x=self.x[index.to(self.x.device)],
            condition=rows_of(self.condition, index),
        )


@dataclass(frozen=True)
class Guidance(ABC):
    r"""Abstract guidance: what makes one model of some, each row by itself.

    Attributes:
        roles: What pictures call the first models: names of :data:`scoresde.models.BASES` are what guidance
            starts from, those of :data:`scoresde.models.OTHERS` what it leads away from.
        others: What they call further ones, which are numbered.
        smooth: Whether derivatives of what it returns are known.
        changes: Whether the model is no longer the score of noisy data, even where its models are.
    """

    roles: ClassVar[Sequence[str]] = ("model", "other")
    others: ClassVar[str] = "part"
    smooth: ClassVar[bool] = True
    changes: ClassVar[bool] = True

    @abstractmethod
    def bind(self, asked: Asked) -> Sequence[StateField]:
        r"""Returns what is asked for, at each of the times, as :meth:`scoresde.ScoreModel.combine` does."""

    def check(self, models: Sequence[ScoreModel]) -> None:
        r"""Refuses models that it cannot guide, and a rule that holds what it does not say."""

        known = {f.name for f in fields(self)}
        unsaid = [n for n in vars(self) if n not in known and not hasattr(type(self), n)]
        if unsaid:
            name = type(self).__name__
            raise TypeError(
                f"the rule {name} holds {', '.join(unsaid)}, which is no field of it, so samples would not "
                f"get their own: write @dataclass(frozen=True) above {name}, and name it there with its type."
            )

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        r"""Returns the rule whose tensors are changed."""

        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return replace(self, **{name: changed(value, change) for name, value in own.items()})

    def rows(self, index: Tensor) -> Self:
        r"""Returns the rule for some rows."""

        return self.map(of_rows(index))

    def on(self, device: torch.device) -> Self:
        r"""Returns the rule with its tensors on a device."""

        return self.map(lambda value: value.to(device))

    @property
    def held(self) -> dict[str, Tensor]:
        r"""Its tensors by name, each with leading size B or 1."""

        return dict(chain(*(tensors_in(f.name, getattr(self, f.name)) for f in fields(self))))

    @property
    def words(self) -> str:
        r"""What tells it from others, but for the data it compares with."""

        own = [(f.name, told(getattr(self, f.name))) for f in fields(self) if f.repr]
        return words_of(type(self), [(name, text) for name, text in own if text])

    def cost(self, costs: Sequence[int]) -> int:
        r"""Returns the network calls of one denoising, from those of each model."""

        return sum(costs)

    def parts(self, models: Sequence[ScoreModel]) -> dict[str, ScoreModel]:
        r"""Returns what it is made of, by name, for pictures."""

        names = chain(self.roles, (f"{self.others} {i}" for i in count(1)))
        return dict(zip(names, models, strict=False))

    def part_levels(self, models: Sequence[ScoreModel], level: float) -> list[float]:
        r"""Returns the noise levels nearest to one at which each of these parts is asked."""

        return [level] * len(models)


class Rule(Guidance):
    r"""Abstract guidance that is any function of denoised data."""

    @abstractmethod
    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        r"""Returns the denoised data, with shape (B, \*), each row by itself.

        Arguments:
            denoised: That of each model, with shape (B, \*).
            noisy: Of which noisy data.
        """

    def bind(self, asked: Asked) -> Sequence[StateField]:
        rule = self.on(asked.x.device)

        def guided(fields: Sequence[StateField], place: Place) -> StateField:
            return lambda X: place.answer(X, rule([f(X) for f in fields], place.noisy(X)))

        return list(map(guided, asked.denoised(), asked.places))
