r"""Guidance by gradients of functions of the data: of classifiers of noisy data, and of any loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from solvers.doors.signatures import checked

from ..models.checks import check_count, check_finite
from ..models.conditions import as_conditions
from ..models.score_model import ScoreModel
from ..models.spoken import of_data
from .asked import Noisy
from .gradients import RowFunction, check_owner
from .guided import Guided
from .pulled import Known, Pull
from .rule import Rule
from .scales import Scale, as_scale, factor

LogProb = Callable[..., Tensor]


@checked
def classifier(
    model: ScoreModel,
    log_prob: LogProb,
    scale: Scale = 1.0,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model whose score is the sum of its own and that of a classifier of noisy data.

    .. math:: \nabla \log p(x_t) + w \, \nabla \log p(y \mid x_t) , \qquad
        D' = D + w \, \frac{\sigma^2}{\alpha} \nabla_{x_t} \log p(y \mid x_t)

    With :math:`w = 1` and an exact classifier, this is the conditional score.

    Arguments:
        model: The model.
        log_prob: A function `log_prob(x, t, **data)` of noisy data, with shape (B, \*), and its time, with
            shape (B,), that returns the log-probabilities of the condition, with shape (B,).
        scale: The scale :math:`w`: a number, one number per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales with the same shape.
        data: The condition, such as labels, each with leading size B or 1.

    Raises:
        ValueError: If the process of the model has matrices in place of :math:`\alpha` and :math:`\sigma`.

    References:
        | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), section 4
        | https://arxiv.org/abs/2105.05233

    Examples:
        >>> guided = ss.guidance.classifier(model, lambda x, t: x.sum(1), 2.0)
        >>> guided.denoise(torch.zeros(1, 2), torch.tensor([0.5]))  # 0 + 2 sigma^2
        tensor([[0.5000, 0.5000]])
    """

    data = as_conditions(data)
    asked = RowFunction("log_prob", log_prob, data, ("x", "t"))
    check_owner("log_prob", log_prob, data, model.process)
    scaled = model.process.has_scales
    if model.process.has_levels and not scaled:
        raise ValueError(
            f"the gradient of a classifier is added to scores by the numbers alpha and sigma, which "
            f"{model.process} does not have; train it with the label as a condition."
        )
    return Guided((model,), Classified(asked, as_scale("scale", scale), data, scaled))


@dataclass(frozen=True)
class Classified(Rule):
    r"""See :func:`classifier`."""

    log_prob: RowFunction
    scale: Scale
    data: Mapping[str, Tensor]
    scaled: bool = field(default=True, repr=False)  # without scales, it adds to x + score
    smooth, on_scores = False, True

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        gradient = self.log_prob.gradient(noisy.state, noisy.time, **self.data)
        w = factor("scale", self.scale, noisy.level, noisy.x)
        return D + (w * noisy.level**2 * noisy.alpha if self.scaled else w) * gradient


@checked
def optimised(
    model: ScoreModel,
    loss: Callable[..., Tensor],
    rate: float,
    *,
    iterations: int = 5,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model whose denoised data is moved by some gradient descent steps on a loss.

    .. math:: D \leftarrow D - \eta \, \nabla \ell(D)

    This is the paper's "backward" guidance, which does not differentiate the network; use it instead of
    :func:`universal` or around it, and with the solver "recurrent" for the paper's self-recurrence.

    Arguments:
        model: The model.
        loss: A function `loss(D, **data)` of the denoised data, with shape (B, \*), that returns one number
            per sample, with shape (B,).
        rate: The size :math:`\eta` of the steps.
        iterations: The number of steps.
        data: Further arguments of the loss, such as targets, each with leading size B or 1.

    References:
        | Universal Guidance for Diffusion Models (Bansal et al., 2023), equation (8)
        | https://arxiv.org/abs/2302.07121

    Examples:
        >>> guided = ss.guidance.optimised(model, lambda D: (D - 1).square().sum(1) / 2, 1.0, iterations=1)
        >>> guided.denoise(torch.zeros(1, 2), torch.tensor([0.5]))
        tensor([[1., 1.]])
    """

    rate = check_finite("rate", rate)
    iterations = check_count("iterations", iterations, at_least=1)
    data = as_conditions(data)
    check_owner("loss", loss, data)
    asked = RowFunction("loss", of_data(model, loss), data)
    return Guided((model,), Optimised(asked, rate, iterations, data))


@dataclass(frozen=True)
class Optimised(Rule):
    r"""See :func:`optimised`."""

    loss: RowFunction
    rate: float
    iterations: int
    data: Mapping[str, Tensor]
    smooth = False

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        for _ in range(self.iterations):
            D = D - self.rate * self.loss.gradient(D, **self.data)
        return D


@checked
def universal(
    model: ScoreModel,
    loss: Callable[..., Tensor],
    scale: Scale = 1.0,
    *,
    max_level: float | None = None,
    **data: Tensor,
) -> ScoreModel:
    r"""Returns the model guided by any loss of the denoised data, with the gradient through the model.

    .. math:: D' = D - w \, V \, \nabla \ell(D)

    It weights data by :math:`\exp(-w \, \ell)`, as far as the loss of the estimate equals that of the data.

    Arguments:
        model: The model.
        loss: A function `loss(D, **data)` of the denoised data, with shape (B, *), that returns one number
            per sample, with shape (B,): such as minus the log-probability of a class by any classifier.
        scale: The scale :math:`w`: a number, one number per sample with shape (B,), or a function from noise
            levels :math:`\sigma / \alpha` to scales with the same shape.
        max_level: The noise level above which the model is not guided; `inf` for no limit. By default, the limit
            of a network is the level above which its derivatives are mostly errors, and exact models have no
            limit.
        data: Further arguments of the loss, such as targets, each with leading size B or 1.

    References:
        | Universal Guidance for Diffusion Models (Bansal et al., 2023), equation (5), "forward"
        | https://arxiv.org/abs/2302.07121

    Examples:
        >>> guided = ss.guidance.universal(model, lambda D: -D.sum(1), 2.0)
        >>> guided.denoise(torch.zeros(1, 2), torch.tensor([0.5]))  # 2 V = 0.25
        tensor([[0.2500, 0.2500]])
    """

    known, data = as_scale("scale", scale), as_conditions(data)
    check_owner("loss", loss, data)
    rule = Universal(
        RowFunction("loss", of_data(model, loss), data), known, data, max_level=max_level
    )
    return Guided((model,), rule)


@dataclass(frozen=True)
class Universal(Pull):
    r"""See :func:`universal`."""

    loss: RowFunction
    scale: Scale
    data: Mapping[str, Tensor]

    def __call__(self, D: Tensor, known: Known) -> Tensor:
        w = factor("scale", self.scale, known.level, D)
        return -w * self.loss.gradient(D, **self.data)
