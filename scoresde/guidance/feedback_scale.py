r"""Feedback guidance: as much as the state needs."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import align

from ..models.checks import check_finite, check_number
from ..models.conditions import check_conditions, rows_of
from ..models.score_model import ScoreModel
from ..runs.current import suspect
from .combined import Combined, Noisy
from .gradients import check_function, check_owner, one_per_row, title

LARGEST = 1e300  # a number that 0 may be multiplied with


@checked
def feedback(
    model: ScoreModel,
    log_ratio: Callable[..., Tensor],
    share: float,
    *,
    limit: float = 10.0,
    **condition: Tensor,
) -> ScoreModel:
    r"""Returns the model guided by as much as its own mistake needs, state by state.

    If a model has learned :math:`q(x \mid c) = \pi \, p(x \mid c) + (1 - \pi) \, p(x)` under the condition c, the
    score of :math:`p(x_t \mid c)` is that of

    .. math:: D_u + w \, (D_c - D_u) , \qquad w(x, t) = 1 + \frac{1 - \pi}{\pi \, r} , \qquad
        r = \frac{p(x_t \mid c)}{p(x_t)} = \frac{p(c \mid x_t)}{p(c)} ,

    exactly and at every noise level, since noise keeps mixtures. So samples that show the condition are left
    alone. The paper estimates a ratio along the path of a chain; here it is a function of the state, such
    as a classifier of noisy data knows, so the guided model serves every solver and inversion.

    Arguments:
        model: A score model that also answers without the condition.
        log_ratio: A function `log_ratio(x, t, **condition)` of noisy data, with shape (B, \*), and its time, with
            shape (B,), that returns :math:`\log r`, with shape (B,): the log-probability of the condition given x,
            less that of the condition.
        share: The :math:`\pi` in (0, 1]; 1 is the model itself.
        limit: The largest scale. Where the state does not show the condition at all, as at low noise between
            classes far apart, the formula multiplies what is nearly 0 with what is nearly infinite, and the limit
            makes the estimate :math:`D_u` in place of :math:`D_c`. With `inf` it holds as far as numbers go.
        condition: The condition, with leading size B or 1.

    References:
        | Feedback Guidance of Diffusion Models (Koulischer et al., 2025), section 3
        | https://arxiv.org/abs/2506.06085
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
    return _Feedback((model.given(**bound), model), log_ratio, share, limit, bound)


class _Feedback(Combined):
    roles = ("conditional", "unconditional")

    def __init__(
        self,
        models: Sequence[ScoreModel],
        log_ratio: Callable[..., Tensor],
        share: float,
        limit: float,
        condition: Mapping[str, Tensor],
    ) -> None:
        super().__init__(models, f"feedback {share:g} up to {limit:g}")
        self.log_ratio, self.share, self.limit = log_ratio, share, limit
        self.condition = dict(condition)

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.condition

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        x = noisy.x
        found = self.log_ratio(noisy.state, noisy.time, **noisy.held)
        found = one_per_row("log_ratio", found, x)
        cause = f"what log_ratio {title(self.log_ratio)!r} returns is NaN or infinite"
        suspect(cause, "take log_softmax in place of the logarithm of probabilities", found, x)
        need = (1 - self.share) / self.share * torch.exp(-found.double()).clamp(max=LARGEST)
        scale = torch.where(found.isfinite(), (1 + need).clamp(max=self.limit), torch.nan)
        bound, free = denoised
        return (free + align(scale, x) * (bound - free)).to(x)

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        condition = rows_of(self.held, index)
        return _Feedback(models, self.log_ratio, self.share, self.limit, condition)
