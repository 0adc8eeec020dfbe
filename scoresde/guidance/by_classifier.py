r"""Classifier guidance: by a classifier that was trained on noisy data."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import Scalar

from ..models.checks import check_finite
from ..models.conditions import as_conditions, rows_of
from ..models.score_model import ScoreModel
from .combined import Combined, Noisy
from .conditional import scales_at
from .gradients import RowFunction, check_owner

LogProb = Callable[..., Tensor]


@checked
def classifier(
    model: ScoreModel,
    log_prob: LogProb,
    scale: float | Callable[[Tensor], Tensor] = 1.0,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model whose score is that of data and of a classifier on noisy data.

    .. math:: \nabla \log p(x_t) + w \, \nabla \log p(y \mid x_t) , \qquad
        D' = D + w \, \frac{\sigma^2}{\alpha} \nabla_{x_t} \log p(y \mid x_t)

    At :math:`w = 1`, and with an exact classifier, it is the conditional score.

    Arguments:
        model: The model.
        log_prob: A function `log_prob(x, t, **data)` of noisy data, with shape (B, \*), and its time, with
            shape (B,), that returns the log-probabilities of what is asked for, with shape (B,).
        scale: The scale :math:`w`, or a function from noise levels to scales of the same shape.
        data: What is asked for, such as labels, each with leading size B or 1.

    References:
        | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), section 4
        | https://arxiv.org/abs/2105.05233
    """

    data = as_conditions(data)
    asked = RowFunction("log_prob", log_prob, data, ("x", "t"))
    check_owner("log_prob", log_prob, data, model.process)
    if not callable(scale):
        scale = check_finite("scale", scale)
    return _Classified((model,), asked, scale, data)


class _Classified(Combined):
    def __init__(
        self,
        models: Sequence[ScoreModel],
        log_prob: RowFunction,
        scale: float | Callable[[Tensor], Tensor],
        data: Mapping[str, Tensor],
    ) -> None:
        words = getattr(scale, "__qualname__", "scaled") if callable(scale) else f"{scale:g}"
        super().__init__(models, f"a classifier {words}")
        self.log_prob, self.scale, self.data = log_prob, scale, dict(data)
        self.differentiable = False

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.data

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        gradient = self.log_prob.gradient(noisy.state, noisy.time, **noisy.held)
        return D + self._scale_at(noisy.level) * noisy.level**2 * noisy.alpha * gradient

    def _scale_at(self, level: Scalar) -> Scalar:
        if not callable(self.scale):
            return self.scale
        found = scales_at(self.scale, torch.as_tensor(level, dtype=torch.float64))
        return found.to(level) if isinstance(level, Tensor) else float(found)

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        return _Classified(models, self.log_prob, self.scale, rows_of(self.held, index))
