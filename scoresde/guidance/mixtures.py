r"""Mixtures, which noise preserves exactly: of several models, and the mixture that a model has learned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import align

from ..models.checks import check_finite, check_number
from ..models.conditions import Bound, Condition, check_conditions
from ..models.score_model import ScoreModel
from ..runs.current import suspect
from .asked import Noisy
from .gradients import check_function, check_owner, one_per_row
from .guided import Guided
from .rule import Rule
from .words import title

LARGEST = 1e300  # a finite number, so that its product with 0 is 0


@checked
def mixture(
    models: Sequence[ScoreModel], log_weights: Callable[[Tensor, Tensor], Tensor]
) -> ScoreModel:
    r"""Returns the model of a mixture, whose data comes from one of several models. Its moments are not known.

    .. math:: \sum_i r_i \, D_i , \qquad r_i \propto \pi_i \, p_i(x_t) ,

    exactly, since noise preserves mixtures. For conditions of one model,
    :math:`p_i(x_t) \propto p(c_i \mid x_t) / p(c_i)`, which a classifier of noisy data provides.

    Arguments:
        models: The models, or one model with one condition each.
        log_weights: A function of noisy data, with shape (B, \*), and its time, with shape (B,), that returns
            :math:`\log \pi_i + \log p_i(x_t)`, up to a common term, with shape (B, n).

    Raises:
        ValueError: If there are fewer than two models.

    Examples:
        >>> models = [model, ss.GaussianOracle(torch.ones(2), 0.5)]
        >>> both = ss.guidance.mixture(models, lambda x, t: torch.zeros(len(x), 2))
        >>> both.denoise(torch.zeros(1, 2), torch.tensor([0.5]))  # (0 + 0.5) / 2
        tensor([[0.2500, 0.2500]])
    """

    if len(models) < 2:
        raise ValueError(f"a mixture needs at least two models, but got {len(models)}.")
    check_function("log_weights", log_weights, {}, ("x", "t"))
    guided = Guided(models, Mixture(log_weights))
    guided.moments = None
    return guided


@dataclass(frozen=True)
class Mixture(Rule):
    r"""See :func:`mixture`."""

    log_weights: Callable[[Tensor, Tensor], Tensor]
    roles, on_scores = (), True

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        x = noisy.x
        found, due = self.log_weights(noisy.state, noisy.time), (len(x), len(denoised))
        if not isinstance(found, Tensor) or found.shape != due:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"log_weights must return shape {due}, one per model, not {shape}.")
        shares = torch.softmax(found.double(), dim=1).to(x)
        return torch.einsum("nb,nb...->b...", shares.T, torch.stack(list(denoised)))


@checked
def feedback(
    model: ScoreModel,
    log_ratio: Callable[..., Tensor],
    share: float,
    *,
    limit: float = 10.0,
    **condition: Condition,
) -> ScoreModel:
    r"""Returns the model guided only as much as its own error requires, state by state.

    If a model has learned :math:`q(x \mid c) = \pi \, p(x \mid c) + (1 - \pi) \, p(x)` under the condition c, the
    score of :math:`p(x_t \mid c)` is that of

    .. math:: D_u + w \, (D_c - D_u) , \qquad w(x, t) = 1 + \frac{1 - \pi}{\pi \, r} , \qquad
        r = \frac{p(x_t \mid c)}{p(x_t)} = \frac{p(c \mid x_t)}{p(c)} ,

    exactly and at every noise level, since noise preserves mixtures. So samples that already show the condition
    are not guided further. The paper estimates the ratio along the path of a chain; here it is a function of the
    state, for instance from a classifier of noisy data, so the guided model works with every solver and with
    inversion.

    Arguments:
        model: A score model that can also be called without the condition.
        log_ratio: A function `log_ratio(x, t, **condition)` of noisy data, with shape (B, \*), and its time, with
            shape (B,), that returns :math:`\log r`, with shape (B,): the log-probability of the condition given
            x, minus that of the condition.
        share: The :math:`\pi` in (0, 1]; 1 is the model itself.
        limit: The largest scale. If the state does not show the condition at all, as at low noise between
            distant classes, the formula multiplies a nearly vanishing difference by a nearly infinite scale, and
            the limit makes the estimate :math:`D_u` instead of :math:`D_c`. With `inf`, the formula holds as far
            as rounding allows.
        condition: The condition, with leading size B or 1.

    Raises:
        ValueError: If `share` is not in (0, 1], `limit` is below 1, or there is no condition.

    References:
        | Feedback Guidance of Diffusion Models (Koulischer et al., 2025), section 3
        | https://arxiv.org/abs/2506.06085

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> ratio = lambda x, t, label: torch.zeros(len(x))
        >>> guided = ss.guidance.feedback(pair, ratio, 0.5, label=torch.tensor([1]))
        >>> guided.denoise(torch.zeros(1, 1), torch.tensor([0.5]))  # 0 + 2 (0.5 - 0)
        tensor([[1.]])
    """

    share, limit = check_finite("share", share), check_number("limit", limit)
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], but is {share}.")
    if not limit >= 1:
        raise ValueError(f"limit must be at least 1, but is {limit}.")
    if not condition:
        raise ValueError("feedback needs a condition, such as label=.")
    bound = check_conditions(model, condition, None)
    check_function("log_ratio", log_ratio, bound, ("x", "t"))
    check_owner("log_ratio", log_ratio, bound, model.process)
    if share == 1:
        return model.given(**bound)
    return Guided((model.given(**bound), model), Feedback(share, limit, log_ratio, bound))


@dataclass(frozen=True)
class Feedback(Rule):
    r"""See :func:`feedback`."""

    share: float
    limit: float
    log_ratio: Callable[..., Tensor]
    condition: Mapping[str, Bound]
    roles, on_scores = ("conditional", "unconditional"), True

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        x = noisy.x
        found = self.log_ratio(noisy.state, noisy.time, **self.condition)
        found = one_per_row("log_ratio", found, x)
        cause = f"the result of log_ratio {title(self.log_ratio)!r} is NaN or infinite"
        suspect(cause, "use log_softmax instead of the logarithm of probabilities", found, x)
        need = (1 - self.share) / self.share * torch.exp(-found.double()).clamp(max=LARGEST)
        scale = torch.where(found.isfinite(), (1 + need).clamp(max=self.limit), torch.nan)
        bound, free = denoised
        return (free + align(scale, x) * (bound - free)).to(x)
