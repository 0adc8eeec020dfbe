r"""Guidance by gradients through the model: losses on the denoised data, and inverse problems.

The covariance of the data given its noisy state is :math:`V = s^2 \, \partial D / \partial X`, with
:math:`X = x / \alpha` and the noise level s, so a gradient c with respect to the data moves the estimate to

.. math:: D' = D + V c .

References:
    | Tweedie's formula for the covariance: Efron (2011), section 2
    | https://doi.org/10.1198/jasa.2011.tm11181
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..models.checks import check_number
from ..models.derivative import check_derivative
from ..models.score_model import Given, ScoreModel
from .asked import Asked, Place
from .gradients import check_gradients, check_graph
from .rule import Guidance
from .trust import trusted_level


class Known(NamedTuple):
    r"""The noise level and the covariance of an estimate.

    Arguments:
        level: Its noise level :math:`s`.
        covariance: A function that multiplies V with a tensor of the data's shape.

    Examples:
        >>> known = ss.guidance.Known(level=0.5, covariance=lambda v: v / 8)
        >>> known.covariance(torch.ones(1, 2))
        tensor([[0.1250, 0.1250]])
    """

    level: Scalar
    covariance: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pull(Guidance):
    r"""Abstract guidance that moves the estimates of one model by a gradient.

    Arguments:
        max_level: The noise level above which estimates are not changed. By default, it follows from a check of
            the model's derivatives; see :mod:`scoresde.guidance.trust`.

    Examples:
        >>> class Up(ss.guidance.Pull):
        ...     def __call__(self, D, known):
        ...         return torch.ones_like(D)
        >>> ss.guidance.Guided([model], Up()).denoise(torch.zeros(1, 2), torch.tensor([0.5]))  # V = 0.125
        tensor([[0.1250, 0.1250]])
    """

    max_level: float | None = field(default=None, kw_only=True)
    smooth = False

    def __post_init__(self) -> None:
        check_number("max_level", self.max_level)
        if self.max_level is not None and not self.max_level > 0:
            raise ValueError(
                f"max_level must be a positive noise level, or inf for none, but is {self.max_level}."
            )

    @abstractmethod
    def __call__(self, D: Tensor, known: Known) -> Tensor:
        r"""Returns the gradient c, with shape (B, \*), separately for each row.

        Arguments:
            D: The denoised data, with shape (B, \*).
            known: Its noise level and covariance.
        """

    def check(self, models: Sequence[ScoreModel]) -> None:
        super().check(models)
        if len(models) != 1:
            raise ValueError(
                f"guidance by a gradient takes one model, but there are {len(models)}."
            )
        if not models[0].differentiable:
            raise ValueError(
                f"{models[0]!r} is guided by gradients already, and cannot be differentiated again; put "
                "this guidance inside the other, add the losses, or join the operators by "
                "guidance.joined."
            )

    def bind(self, asked: Asked) -> Sequence[StateField]:
        check_gradients()
        [model], x, levels = asked.models, asked.x, asked.levels
        condition = asked.mine(0)
        bound = Given(model, condition) if condition else model
        check_derivative(bound, x, "reverse", "guidance by gradients through a model")
        # gradients are those of x / scale
        force = levels**2 * asked.process.scales(asked.times)[0] / asked.scale
        limit = trusted_level(model, x, len(x)) if self.max_level is None else self.max_level
        force = torch.where(levels <= limit, force, 0.0)  # for rows that differ
        below = (levels <= limit).reshape(len(levels), -1).any(1).tolist()
        pull = self.beside(x)

        def guided(
            fields: Sequence[StateField], place: Place, below: bool, force: Scalar
        ) -> StateField:
            [estimate] = fields
            if not below:
                return lambda X: place.answer(X, estimate(X))
            return lambda X: place.answer(X, pull.moved(model, estimate, X, place.level, force))

        return list(map(guided, asked.denoised(), asked.places, below, scalars(force, x)))

    def moved(
        self, model: ScoreModel, estimate: StateField, X: Tensor, level: Scalar, force: Scalar
    ) -> Tensor:
        r"""Returns the estimate of a state, moved by the gradient."""

        with torch.enable_grad():
            state = X.detach().requires_grad_()
            D = estimate(state)
        check_graph(model, D)

        def covariance(v: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(D, state, v, retain_graph=True)
            return force * product

        known = D.detach()
        return known + covariance(self(known, Known(level, covariance)))
