r"""Sums of models with weights that depend on the noise level, and the guidances of this form."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.problem import StateField

from ..models.score_model import ScoreModel
from .asked import Asked
from .guided import Guided
from .rule import Guidance
from .scales import Scale, as_scale, scales_at


class Affine(Guidance):
    r"""Abstract guidance :math:`\sum_k w_k(s) \, D_k`, whose weights sum to 1.

    The weights are folded into the networks' predictions, and a model whose weight is 0 for all rows is not
    called.

    Attributes:
        apart: Whether each row, at its own noise level, calls only the models that have a weight there.

    Examples:
        >>> class Half(ss.guidance.Affine):
        ...     def weights(self, levels):
        ...         return torch.full((*levels.shape, 2), 0.5)
        >>> both = ss.guidance.Guided([model, ss.GaussianOracle(torch.ones(2), 0.5)], Half())
        >>> both.denoise(torch.zeros(1, 2), torch.tensor([0.5]))  # (0 + 0.5) / 2
        tensor([[0.2500, 0.2500]])
    """

    apart: ClassVar[bool] = False
    on_scores = True

    @abstractmethod
    def weights(self, levels: Tensor) -> Tensor:
        r"""Returns the weights of the k models at the given noise levels.

        Arguments:
            levels: The noise levels :math:`\sigma / \alpha` in float64, with shape (n,), or (n, B) if rows
                differ; the times, for a process without scales.

        Returns:
            The weights, with shape (\*levels.shape, k), or (n, B, k) for separate weights per sample.
        """

    def bind(self, asked: Asked) -> Sequence[StateField]:
        w = self.map(Tensor.cpu).weights(asked.levels).double()
        if w.shape[-1] != len(asked.models):
            raise ValueError(
                f"weights must have an entry for each of {len(asked.models)} models, but have {tuple(w.shape)}."
            )
        if w.ndim > asked.times.ndim + 1:
            asked, w = self._by_sample(asked, w)
        elif self.apart and asked.times.ndim > 1:
            return [_apart(asked.steps(torch.tensor([i])), w[i]) for i in range(len(w))]
        found = _summands(asked, w)
        return [_sum(fields) for fields in found]

    def _by_sample(self, asked: Asked, w: Tensor) -> tuple[Asked, Tensor]:
        r"""The request with times per row, like the weights."""

        n, batch = len(w), len(asked.x)
        if w.shape[1] not in (1, batch):
            name = ", ".join(self.held) or "weights"
            raise ValueError(f"{name} must be one number or {batch}, not {w.shape[1]}.")
        times, a, b, scale = (value[:, None].expand(n, batch) for value in asked[1:5])
        return asked._replace(times=times, a=a, b=b, scale=scale), w.expand(n, batch, -1)


def _summands(asked: Asked, w: Tensor) -> list[list[StateField]]:
    r"""The summands at each time; the first model that is called contributes the noisy data."""

    needed = _needed(w).reshape(len(w), -1, w.shape[-1]).any(1)
    found: list[list[StateField]] = [[] for _ in w]
    for k in range(w.shape[-1]):
        steps = needed[:, k].nonzero()[:, 0]
        if not len(steps):
            continue
        part = asked.steps(steps)
        later = needed[steps, :k].any(1).reshape(-1, *(1,) * (part.a.ndim - 1))
        part = part._replace(a=torch.where(later, 0.0, part.a), b=w[steps, ..., k] * part.b)
        for i, field in zip(steps.tolist(), part.of(k), strict=True):
            found[i].append(field)
    return found


def _needed(w: Tensor) -> Tensor:
    r"""Which models are called: those with a weight, or the first one if none has a weight."""

    needed = w != 0
    needed[..., 0] |= ~needed.any(-1)
    return needed


def _sum(fields: Sequence[StateField]) -> StateField:
    first, *others = fields
    if not others:
        return first

    def added(X: Tensor) -> Tensor:
        total = first(X)
        for field in others:
            total = total + field(X)
        return total

    return added


def _apart(asked: Asked, w: Tensor) -> StateField:
    r"""The result for times per row, where each model is called only for the rows in which it has a weight."""

    parts, needed = [], _needed(w)
    for k in range(w.shape[-1]):
        rows = needed[:, k].nonzero()[:, 0]
        if len(rows):
            part = asked.rows(rows)
            later = needed[rows, :k].any(1)
            part = part._replace(a=torch.where(later, 0.0, part.a), b=w[rows, k] * part.b)
            parts.append((rows.to(asked.x.device), part.of(k)[0]))

    def added(X: Tensor) -> Tensor:
        total = torch.zeros_like(X)
        for here, field in parts:
            total[here] += field(X[here])
        return total

    return added


@checked
def autoguidance(model: ScoreModel, weak: ScoreModel, scale: Scale) -> ScoreModel:
    r"""Returns the model guided by its difference from a weaker one.

    .. math:: D_{weak} + w \, (D - D_{weak})

    Arguments:
        model: The model, with its conditions bound.
        weak: A less trained or smaller model, with the same conditions.
        scale: The scale :math:`w`: a number, one number per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales with the same shape. 1 is the model itself.

    References:
        | Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024), equation (5)
        | https://arxiv.org/abs/2406.02507

    Examples:
        >>> guided = ss.guidance.autoguidance(ss.GaussianOracle(torch.ones(2), 0.5), model, 2.0)
        >>> guided.denoise(torch.ones(1, 2), torch.tensor([0.5]))  # 0.5 + 2 (1 - 0.5)
        tensor([[1.5000, 1.5000]])
    """

    return Guided((model, weak), Autoguidance(as_scale("scale", scale)))


@dataclass(frozen=True)
class Autoguidance(Affine):
    r"""See :func:`autoguidance`."""

    scale: Scale
    roles = ("strong", "weak")

    def weights(self, levels: Tensor) -> Tensor:
        [w] = scales_at("scale", [self.scale], levels)
        return torch.stack([w, 1 - w], -1)


@checked
def product(
    model: ScoreModel, parts: Sequence[ScoreModel], weights: Sequence[Scale] | None = None
) -> ScoreModel:
    r"""Returns the model guided towards several conditions at once, or away from some of them.

    .. math:: D + \sum_i w_i \, (D_i - D)

    For conditions that are independent given the noisy data at every noise level, this would be the score with
    all weights 1. Plain sampling is biased nevertheless, since noise does not keep them independent. A negative
    weight negates a condition.

    Arguments:
        model: The model without conditions.
        parts: Models with one condition each, or other models of the same process.
        weights: The weights :math:`w_i`, each in the forms of the scale of :func:`scoresde.classifier_free`. By
            default, all are 1.

    Raises:
        ValueError: If there are no parts, or not as many weights.

    References:
        | Compositional Visual Generation with Composable Diffusion Models (Liu et al., 2022),
        | equations (11) and (12)
        | https://arxiv.org/abs/2206.01714

    Examples:
        >>> one = ss.GaussianOracle(torch.ones(2), 0.5)
        >>> guided = ss.guidance.product(model, [one, one])
        >>> guided.denoise(torch.ones(1, 2), torch.tensor([0.5]))  # 0.5 + 2 (1 - 0.5)
        tensor([[1.5000, 1.5000]])
    """

    if not parts:
        raise ValueError("parts must hold at least one model, but is empty.")
    weights = [1.0] * len(parts) if weights is None else list(weights)
    if len(weights) != len(parts):
        raise ValueError(
            f"weights must be {len(parts)} finite numbers, one per part, not {weights}."
        )
    each = tuple(as_scale("each of weights", weight) for weight in weights)
    return Guided((model, *parts), Product(each))


@dataclass(frozen=True)
class Product(Affine):
    r"""See :func:`product`."""

    each: tuple[Scale, ...]
    roles = ("model",)

    def weights(self, levels: Tensor) -> Tensor:
        each = scales_at("weights", self.each, levels)
        return torch.stack([1 - torch.stack(each).sum(0), *each], -1)
