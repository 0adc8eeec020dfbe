r"""Requests to a guided model: quantities, times and noisy data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..models.conditions import rows_of
from ..models.score_model import ScoreModel
from ..models.times import model_times
from ..processes.process import Process


class Noisy(NamedTuple):
    r"""The noisy data at which a guided model is called.

    Arguments:
        x: The noisy data in units of the data, :math:`X = x_t / \alpha`, with shape (B, \*).
        level: Its noise level :math:`s = \sigma / \alpha`.
        alpha: Its scale.
        state: The noisy data :math:`x_t`, with shape (B, \*).
        time: Its time, with shape (B,), as models receive it.

    Examples:
        >>> class Unchanged(ss.guidance.Rule):  # the noisy data in place of the denoised
        ...     def __call__(self, denoised, noisy):
        ...         return noisy.x
        >>> ss.guidance.Guided([model], Unchanged()).denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[1., 1.]])
    """

    x: Tensor
    level: Scalar
    alpha: Scalar
    state: Tensor
    time: Tensor


class Place(NamedTuple):
    r"""A time at which :math:`a x + b D` is requested from a guided model, with x = scale X.

    Its numbers are factors of states: each is one number, or one per row.
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
        r"""Returns the requested quantity, from the denoised data."""

        if D.shape != X.shape:
            raise ValueError(
                f"a guidance must return the shape of the data, {tuple(X.shape)}, but returned {tuple(D.shape)}."
            )
        return self.a * self.scale * X + self.b * D


class Asked(NamedTuple):
    r"""A request to a guided model, in the form of :meth:`scoresde.ScoreModel.combine`, with its models."""

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
        r"""The noise levels :math:`\sigma / \alpha`, or times without scales, with the shape of the times."""

        return self.process.level(self.times)

    @property
    def places(self) -> list[Place]:
        r"""Each of the times, with its numbers."""

        alpha = self.process.signal(self.times)
        numbers = (self.a, self.b, self.scale, self.scale / alpha, alpha, self.levels)
        columns = (scalars(value, self.x) for value in numbers)
        told = model_times(self.process, self.times, self.x)
        return [Place(*row) for row in zip(told, *columns, strict=True)]

    def mine(self, number: int) -> dict[str, Tensor]:
        r"""Returns the conditions that the given model takes."""

        known = self.models[number].conditions
        return {name: value for name, value in self.condition.items() if name in known}

    def of(self, number: int) -> Sequence[StateField]:
        r"""Returns the same request to one of the models."""

        times, a, b, scale, x = self[1:6]
        return self.models[number].combine(times, a, b, scale, x, **self.mine(number))

    def denoised(self) -> list[tuple[StateField, ...]]:
        r"""Returns the denoised data of each model, at each of the times."""

        asked = self._replace(a=torch.zeros_like(self.times), b=torch.ones_like(self.times))
        return list(zip(*(asked.of(k) for k in range(len(self.models))), strict=True))

    def steps(self, index: Tensor) -> Self:
        r"""Returns the same request at some of the times."""

        times, a, b, scale = (value[index] for value in self[1:5])
        return self._replace(times=times, a=a, b=b, scale=scale)

    def rows(self, index: Tensor) -> Self:
        r"""Returns the same request for some rows, whose times differ."""

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
