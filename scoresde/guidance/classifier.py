r"""Classifier guidance: by a classifier that was trained on noisy data."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..checks import check_finite
from ..conditions import rows_of
from ..models import ScoreModel, model_times
from .gradients import check_function, row_gradient
from .guided import Guided

LogProb = Callable[..., Tensor]


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

    check_function("log_prob", log_prob, data, model.process, ("x", "t"))
    levels = getattr(getattr(log_prob, "__self__", None), "levels", None)
    if levels is not None and levels[0] == levels[1]:
        raise ValueError(
            "this classifier knows clean data alone; use guidance.universal with its loss."
        )
    if not callable(scale):
        check_finite("scale", scale)
    return _Classified(model, log_prob, scale, data)


class _Classified(Guided):
    def __init__(
        self,
        model: ScoreModel,
        log_prob: LogProb,
        scale: float | Callable[[Tensor], Tensor],
        data: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.model, self.log_prob, self.scale, self.data = model, log_prob, scale, dict(data)
        self.resemble(model)
        self.guided, self.differentiable = True, False
        words = f"a classifier {scale if not callable(scale) else getattr(scale, '__qualname__', 'scaled')}"
        self.fingerprint = f"{model.fingerprint or type(model).__name__} guided by {words}"

    def __repr__(self) -> str:
        return f"classifier({self.model!r})"

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return {"model": self.model}

    def check_condition(self, name: str, value: Tensor) -> None:
        self.model.check_condition(name, value)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        fields = self.model.combine(times, a, b, scale, x, **condition)
        alpha, sigma = self.process.scales(times)
        weight = self.scale(sigma / alpha) if callable(self.scale) else self.scale
        if not bool(torch.as_tensor(weight).isfinite().all()):
            raise ValueError("scale must be finite at all noise levels that are asked for.")
        force = b * weight * sigma**2 / alpha
        told = model_times(self.process, times, x)

        def bind(field: StateField, t: Tensor, scale: Scalar, force: Scalar) -> StateField:
            def guided(X: Tensor) -> Tensor:
                gradient = row_gradient("log_prob", self.log_prob, scale * X, t, **self.data)
                return field(X) + force * gradient

            return guided

        columns = zip(fields, told, scalars(scale, x), scalars(force, x), strict=True)
        return [bind(*column) for column in columns]

    def rows(self, index: Tensor) -> ScoreModel:
        return _Classified(
            self.model.rows(index), self.log_prob, self.scale, rows_of(self.data, index)
        )
