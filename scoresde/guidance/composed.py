r"""Several conditions or models at once: products, negations, mixtures, and one for each range of noise levels."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.problem import StateField

from ..models.checks import check_interval, check_numbers
from ..models.conditions import rows_of
from ..models.score_model import ScoreModel
from .combined import Combined, Noisy, Several
from .gradients import check_function


@checked
def product(
    model: ScoreModel, parts: Sequence[ScoreModel], weights: Sequence[float] | None = None
) -> ScoreModel:
    r"""Returns the model guided towards several conditions at once, or away from some.

    .. math:: D + \sum_i w_i \, (D_i - D)

    Conditions that are independent given the noisy data would have this score at weights of 1 at every
    noise level; plain sampling is biased all the same, since noise does not keep them independent. A
    negative weight is a negation.

    Arguments:
        model: The model without conditions.
        parts: Models with one condition each, or other models that share the process.
        weights: The weights :math:`w_i`. By default, all are 1.

    References:
        | Compositional Visual Generation with Composable Diffusion Models (Liu et al., 2022),
        | equations (11) and (12)
        | https://arxiv.org/abs/2206.01714
    """

    if not parts:
        raise ValueError("parts must be one model at least, but are none.")
    weights = [1.0] * len(parts) if weights is None else check_numbers("weights", weights)
    if len(weights) != len(parts) or not all(map(math.isfinite, weights)):
        raise ValueError(
            f"weights must be {len(parts)} finite numbers, one per part, not {weights}."
        )
    return _Product((model, *parts), tuple(weights))


class _Product(Combined):
    def __init__(self, models: Sequence[ScoreModel], weights: tuple[float, ...]) -> None:
        super().__init__(models, f"product {', '.join(f'{w:g}' for w in weights)}")
        self.weights = weights
        self.roles = ("model", *(f"part {i}" for i in range(1, len(models))))

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        free, *parts = denoised
        for weight, D in zip(self.weights, parts, strict=True):
            free = free + weight * (D - denoised[0])
        return free

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _Product(models, self.weights)


@checked
def mixture(
    models: Sequence[ScoreModel], log_weights: Callable[[Tensor, Tensor], Tensor]
) -> ScoreModel:
    r"""Returns the model of data that is one of several. Its moments are not known.

    .. math:: \sum_i r_i \, D_i , \qquad r_i \propto \pi_i \, p_i(x_t) ,

    exactly, since noise keeps mixtures. For conditions of one model,
    :math:`p_i(x_t) \propto p(c_i \mid x_t) / p(c_i)`, which a classifier of noisy data knows.

    Arguments:
        models: The models, or one model with one condition each.
        log_weights: A function of noisy data, with shape (B, \*), and its time, with shape (B,), that returns
            :math:`\log \pi_i + \log p_i(x_t)`, up to what they share, with shape (B, n).
    """

    if len(models) < 2:
        raise ValueError(f"a mixture needs at least two models, but got {len(models)}.")
    check_function("log_weights", log_weights, {}, ("x", "t"))
    return _Mixture(models, log_weights)


class _Mixture(Combined):
    def __init__(
        self, models: Sequence[ScoreModel], log_weights: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__(models, f"mixture of {len(models)}")
        self.log_weights, self.moments = log_weights, None
        self.roles = [f"part {i}" for i in range(1, len(models) + 1)]

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        x = noisy.x
        found, due = self.log_weights(noisy.state, noisy.time), (len(x), len(denoised))
        if not isinstance(found, Tensor) or found.shape != due:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"log_weights must return shape {due}, one per model, not {shape}.")
        shares = torch.softmax(found.double(), dim=1).to(x)
        return torch.einsum("nb,nb...->b...", shares.T, torch.stack(denoised))

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _Mixture(models, self.log_weights)


@checked
def experts(models: Sequence[ScoreModel], levels: Sequence[float]) -> ScoreModel:
    r"""Returns the model that asks one of several, by the noise level.

    Arguments:
        models: The models, from that of the lowest noise levels on.
        levels: The noise levels :math:`\sigma / \alpha` at which the next one takes over, which rise.

    References:
        | eDiff-I: Text-to-Image Diffusion Models with an Ensemble of Expert Denoisers (Balaji et al., 2022)
        | https://arxiv.org/abs/2211.01324
    """

    levels = check_numbers("levels", levels)
    rising = levels == sorted(set(levels))
    if len(levels) != len(models) - 1 or not rising or min(levels, default=1) <= 0:
        raise ValueError(
            f"levels must be {len(models) - 1} noise levels that rise above 0, one between any two models, not "
            f"{list(levels)}."
        )
    return _Experts(models, tuple(float(level) for level in levels))


@checked
def within(guided: ScoreModel, model: ScoreModel, interval: tuple[float, float]) -> ScoreModel:
    r"""Returns the guided model within an interval of noise levels, and the model outside.

    Guidance by gradients through a network has an end of its own, `max_level` of :func:`universal`: both count.

    Arguments:
        guided: The guided model.
        model: The model outside the interval.
        interval: The noise levels, the lower first; 0 and `inf` are no limits.
    """

    check_interval(interval)
    low, high = interval
    before, after = [model] * (low > 0), [model] * (high < math.inf)
    levels = tuple(float(level) for level in interval if 0 < level < math.inf)
    return _Within([*before, guided, *after], levels, len(before))


class _Experts(Several):
    def __init__(self, models: Sequence[ScoreModel], levels: tuple[float, ...]) -> None:
        super().__init__(models, f"experts at {', '.join(f'{level:g}' for level in levels)}")
        self.roles = [f"expert {i}" for i in range(1, len(models) + 1)]
        self.levels, self.cost = levels, max(model.cost for model in models)
        self.guided = any(model.guided for model in models)

    def part_levels(self, level: float) -> list[float]:
        edges = [0.0, *self.levels, math.inf]
        return [min(max(level, low), high) for low, high in pairwise(edges)]

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        edges = torch.tensor(self.levels, dtype=torch.float64)
        number = torch.bucketize(torch.exp(-self.process.log_snr(times)), edges, right=True)
        if times.ndim > 1:  # rows may need different ones: each is asked for its own
            return self._shared(number, times, a, b, scale, x, **condition)
        fields: list[StateField] = [torch.zeros_like] * len(times)
        for k in number.unique().tolist():
            here = (number == k).nonzero()[:, 0]
            part = (value[here] for value in (times, a, b, scale))
            for i, field in zip(
                here.tolist(), self.each[k].combine(*part, x, **condition), strict=True
            ):
                fields[i] = field
        return fields

    def _shared(
        self,
        number: Tensor,
        times: Tensor,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        x: Tensor,
        **condition: Tensor,
    ) -> Sequence[StateField]:
        def bind(i: int) -> StateField:
            parts = []
            for k in number[i].unique().tolist():
                rows = (number[i] == k).nonzero()[:, 0]
                here = rows.to(x.device)
                now = (value[i : i + 1, rows] for value in (times, a, b, scale))
                mine = rows_of(condition, rows)
                parts.append((here, self.each[k].rows(rows).combine(*now, x[here], **mine)[0]))

            def field(X: Tensor) -> Tensor:
                out = torch.empty_like(X)
                for here, part in parts:
                    out[here] = part(X[here])
                return out

            return field

        return [bind(i) for i in range(len(times))]

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _Experts(models, self.levels)


class _Within(_Experts):
    def __init__(
        self, models: Sequence[ScoreModel], levels: tuple[float, ...], inside: int
    ) -> None:
        super().__init__(models, levels)
        self.inside = inside  # the number of the guided model

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return self.each[self.inside].parts

    def part_levels(self, level: float) -> list[float]:
        return self.each[self.inside].part_levels(super().part_levels(level)[self.inside])

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _Within(models, self.levels, self.inside)
