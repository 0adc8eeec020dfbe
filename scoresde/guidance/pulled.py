r"""Guidance by gradients through the model: losses on the denoised data, and inverse problems.

The covariance of the data given its noisy state is :math:`V = s^2 \, \partial D / \partial X`, with
:math:`X = x / \alpha` and the noise level s, so a gradient c with respect to the data moves the estimate by

.. math:: D' = D + V c .

References:
    | Tweedie's formula for the covariance: Efron (2011), section 2
    | https://doi.org/10.1198/jasa.2011.tm11181
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..models.checks import check_finite, check_number
from ..models.conditions import as_conditions, rows_of
from ..models.derivative import check_derivative
from ..models.score_model import Given, ScoreModel
from .gradients import RowFunction, check_gradients, check_graph, check_owner
from .guided import Guided
from .operators import Product
from .trust import trusted_level


class Pull(ABC):
    r"""Abstract gradient by which an estimate is moved."""

    name: str

    @property
    def words(self) -> str:
        r"""What tells it from others, but for the data it compares with."""

        return self.name

    @property
    def held(self) -> Mapping[str, Tensor]:
        r"""The tensors by sample that it holds, each with leading size B or 1."""

        return {}

    @abstractmethod
    def __call__(
        self, D: Tensor, level: Scalar, covariance: Product, held: Mapping[str, Tensor]
    ) -> Tensor:
        r"""Returns the gradient c, with shape (B, \*).

        Arguments:
            D: The denoised data, with shape (B, \*).
            level: The noise level.
            covariance: The product of V with a tensor like the data.
            held: What it holds, on the device of the data.
        """

    def rows(self, index: Tensor) -> Self:
        r"""Returns the same for some rows."""

        return self


class Pulled(Guided):
    r"""Creates the model whose estimates are moved by a gradient.

    Arguments:
        model: The model.
        pull: The gradient.
        max_level: The noise level above which estimates are left as they are. By default, what a check of the
            model's derivatives finds: see :mod:`scoresde.guidance.trust`.
    """

    def __init__(self, model: ScoreModel, pull: Pull, max_level: float | None = None) -> None:
        super().__init__()
        check_number("max_level", max_level)
        if max_level is not None and not max_level > 0:
            raise ValueError(
                f"max_level must be a positive noise level, or inf for none, but is {max_level}."
            )
        if not model.differentiable:
            raise ValueError(
                f"{model!r} is guided by gradients, and has no further ones: put this guidance inside, add "
                "losses, or join operators by guidance.joined."
            )
        self.model, self.pull, self.max_level = model, pull, max_level
        self.resemble(model)
        self.guided, self.differentiable = True, False
        below = "" if max_level is None else f" below {max_level:g}"
        name = model.fingerprint or type(model).__name__
        self.fingerprint = f"{name} guided by {pull.words}{below}"

    def __repr__(self) -> str:
        return f"{self.pull.name}({self.model!r})"

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return {"model": self.model}

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.pull.held

    def check_condition(self, name: str, value: Tensor) -> None:
        self.model.check_condition(name, value)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        check_gradients()
        bound = Given(self.model, condition) if condition else self.model
        check_derivative(bound, x, "reverse", "guidance by gradients through a model")
        none, one = torch.zeros_like(times), torch.ones_like(times)
        fields = self.model.combine(times, none, one, scale, x, **condition)
        level = torch.exp(-self.process.log_snr(times))
        # gradients are those of x / scale
        force = level**2 * self.process.scales(times)[0] / scale
        held, limit = self.held_on(x.device), self.max_level
        if limit is None:
            limit = trusted_level(self.model, x, len(x))
        force = torch.where(level <= limit, force, 0.0)  # for rows that differ
        told = (level <= limit).reshape(len(times), -1).any(1).tolist()

        def bind(field: StateField, told: bool, a: Scalar, b: Scalar, scale: Scalar, level: Scalar,
                 force: Scalar) -> StateField:  # fmt: skip
            if not told:
                return lambda X: a * scale * X + b * field(X)
            return lambda X: a * scale * X + b * self._moved(field, X, level, force, held)

        columns = (scalars(value, x) for value in (a, b, scale, level, force))
        return [bind(*row) for row in zip(fields, told, *columns, strict=True)]

    def _moved(
        self,
        field: StateField,
        X: Tensor,
        level: Scalar,
        force: Scalar,
        held: Mapping[str, Tensor],
    ) -> Tensor:
        with torch.enable_grad():
            state = X.detach().requires_grad_()
            D = field(state)
        check_graph(self.model, D)

        def covariance(v: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(D, state, v, retain_graph=True)
            return force * product

        known = D.detach()
        return known + covariance(self.pull(known, level, covariance, held))

    def rows(self, index: Tensor) -> ScoreModel:
        return Pulled(self.model.rows(index), self.pull.rows(index), self.max_level)


@checked
def universal(
    model: ScoreModel,
    loss: Callable[..., Tensor],
    scale: float = 1.0,
    *,
    max_level: float | None = None,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model guided by any loss of the denoised data, with the gradient through the model.

    .. math:: D' = D - w \, V \, \nabla \ell(D)

    So data is weighted by :math:`\exp(-w \, \ell)`, as far as the loss of an estimate is that of the data.

    Arguments:
        model: The model.
        loss: A function `loss(D, **data)` of the denoised data, with shape (B, *), that returns one number
            per sample, with shape (B,): such as minus the log-probability of a class by any classifier.
        scale: The scale :math:`w`.
        max_level: The noise level above which the model is not guided; `inf` for none. By default, networks have
            one, up to which their derivatives are not mostly errors, and exact models have none.
        data: What the loss compares with, each with leading size B or 1.

    References:
        | Universal Guidance for Diffusion Models (Bansal et al., 2023), equation (5), "forward"
        | https://arxiv.org/abs/2302.07121
    """

    scale = check_finite("scale", scale)
    data = as_conditions(data)
    check_owner("loss", loss, data)
    return Pulled(model, _Loss(RowFunction("loss", loss, data), scale, data), max_level)


@dataclass(frozen=True)
class _Loss(Pull):
    loss: RowFunction
    scale: float
    data: Mapping[str, Tensor]
    name = "loss"

    @property
    def words(self) -> str:
        return f"{self.name} {self.loss.title} {self.scale:g}"

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.data

    def __call__(
        self, D: Tensor, level: Scalar, covariance: Product, held: Mapping[str, Tensor]
    ) -> Tensor:
        return -self.scale * self.loss.gradient(D, **held)

    def rows(self, index: Tensor) -> Self:
        return replace(self, data=rows_of(self.data, index))
