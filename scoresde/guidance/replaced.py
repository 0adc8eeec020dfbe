r"""Denoised data in which a measurement takes the place of what it measures."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_count
from ..models.conditions import as_conditions, rows_of
from ..models.score_model import ScoreModel
from .combined import Combined, Noisy
from .operators import Measurable, Operator, check_measurement, measure, solve


@checked
def replacement(
    model: ScoreModel, operator: Operator, y: Tensor, *, iterations: int = 20, **data: Tensor
) -> ScoreModel:
    r"""Returns the model whose denoised data agrees with a linear measurement without noise.

    .. math:: D + A^+ (y - A D) , \qquad A^+ = A^T (A A^T)^+

    It needs no gradient through the model. What is not measured is not pulled, so it is biased where that depends
    on what is: :func:`pseudoinverse` pulls both. The system is solved by conjugate gradients.

    Arguments:
        model: The model.
        operator: The linear function A, each row by itself.
        y: The measurements, with leading size B or 1.
        iterations: Of conjugate gradients.
        data: What else the operator takes, such as masks, each with leading size B or 1.

    References:
        | Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model (Wang et al., 2023), equation (11)
        | https://arxiv.org/abs/2212.00490
    """

    iterations = check_count("iterations", iterations, at_least=1)
    data = as_conditions(data)
    linear = Measurable(operator, data, affine=True)
    return _Replaced((model,), linear, check_measurement(y), iterations, data)


class _Replaced(Combined):
    def __init__(
        self,
        models: Sequence[ScoreModel],
        operator: Measurable,
        y: Tensor,
        iterations: int,
        data: Mapping[str, Tensor],
    ) -> None:
        super().__init__(models, f"replacement of {operator.title} {iterations}")
        self.operator, self.y, self.iterations, self.data = operator, y, iterations, dict(data)
        self.differentiable = False

    @property
    def held(self) -> Mapping[str, Tensor]:
        return {"y": self.y, **self.data}

    def combined(self, denoised: list[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        data = {name: value for name, value in noisy.held.items() if name != "y"}
        gap, A, adjoint = measure(self.operator, D, noisy.held["y"], data)
        return D + solve(lambda v: adjoint(A(v)), adjoint(gap), self.iterations)

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        held = rows_of(self.held, index)
        return _Replaced(models, self.operator, held.pop("y"), self.iterations, held)
