r"""The estimate of the data that solvers work with, whatever a model has learned."""

from torch import Tensor

from .forms import data_form, noise_form
from .score_model import ScoreModel


def estimate(model: ScoreModel, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
    r"""Returns the model's estimate D of the data, with shape (B, *).

    That of a score model is the denoised data. That of a flow or bridge is the data at the end of one Euler step
    along its velocity in units of the data, :math:`dy / d\sigma'` with :math:`y = x / \alpha` and
    :math:`\sigma' = \sigma / \alpha`, and that of a consistency function is its value.

    Arguments:
        model: The model.
        x: States, with shape (B, *).
        t: The time, with shape () or (B,).
        condition: The conditions, each with leading size B or 1.
    """

    if model.learned == "score":
        return model.denoise(x, t, **condition)
    return model.in_form(data_form, x, t, condition)


def noise_estimate(model: ScoreModel, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
    r"""Returns :math:`(x - \alpha D) / \sigma` of the estimate D, with the arguments of :func:`estimate`."""

    return model.in_form(noise_form, x, t, condition)
