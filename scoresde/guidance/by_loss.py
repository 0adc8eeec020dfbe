r"""Denoised data that is moved to where a loss is small, without gradients through the model."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_count, check_finite
from ..models.conditions import as_conditions, rows_of
from ..models.score_model import ScoreModel
from .combined import Combined, Noisy
from .gradients import RowFunction, check_owner


@checked
def optimised(
    model: ScoreModel,
    loss: Callable[..., Tensor],
    rate: float,
    *,
    iterations: int = 5,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model whose denoised data takes some steps down the gradient of a loss.

    .. math:: D \leftarrow D - \eta \, \nabla \ell(D)

    It is the "backward" guidance of the paper, for which the network is not differentiated; use it on
    :func:`universal` in place of it or around it, and with the solver "recurrent" for its self-recurrence.

    Arguments:
        model: The model.
        loss: A function `loss(D, **data)` of the denoised data, with shape (B, \*), that returns one number
            per sample, with shape (B,).
        rate: The size :math:`\eta` of the steps.
        iterations: Their number.
        data: What the loss compares with, each with leading size B or 1.

    References:
        | Universal Guidance for Diffusion Models (Bansal et al., 2023), equation (8)
        | https://arxiv.org/abs/2302.07121
    """

    rate = check_finite("rate", rate)
    iterations = check_count("iterations", iterations, at_least=1)
    data = as_conditions(data)
    check_owner("loss", loss, data)
    return _Optimised((model,), RowFunction("loss", loss, data), rate, iterations, data)


class _Optimised(Combined):
    def __init__(
        self,
        models: Sequence[ScoreModel],
        loss: RowFunction,
        rate: float,
        iterations: int,
        data: Mapping[str, Tensor],
    ) -> None:
        super().__init__(models, f"optimised {rate:g} x {iterations}")
        self.loss, self.rate, self.iterations, self.data = loss, rate, iterations, dict(data)
        self.differentiable = False

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.data

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        for _ in range(self.iterations):
            D = D - self.rate * self.loss.gradient(D, **noisy.held)
        return D

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        data = rows_of(self.held, index)
        return _Optimised(models, self.loss, self.rate, self.iterations, data)
