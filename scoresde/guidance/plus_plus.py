r"""CFG++: the guided estimate with the noise of the model without condition."""

import torch
from torch import Tensor

from ..checks import check_finite
from ..data import as_floats
from ..models import ScoreModel
from .classifier_free import classifier_free


def plus_plus(model: ScoreModel, scale: float, times: Tensor, **condition: Tensor) -> ScoreModel:
    r"""Returns the model whose steps of DDIM on a grid are those of CFG++.

    From the noise level s to s', in units of the data, these are

    .. math:: X' = D_u + \lambda (D_c - D_u) + s' \, \frac{X - D_u}{s} ,

    which is plain guidance of the scale :math:`w = \lambda / (1 - s' / s)`. It depends on the grid, so the
    grid is asked for; the last denoising has the scale :math:`\lambda`.

    Arguments:
        model: A score model that also answers without the condition.
        scale: The :math:`\lambda` in [0, 1].
        times: The grid, from noise to data, with shape (n + 1,), as `times=` of :func:`scoresde.sample`.
        condition: The condition, with leading size B or 1.

    References:
        | CFG++: Manifold-Constrained Classifier Free Guidance (Chung et al., 2024), algorithm 2
        | https://arxiv.org/abs/2406.08070
    """

    scale = check_finite("scale", scale)
    if not 0 <= scale <= 1:
        raise ValueError(f"scale must lie in [0, 1], but is {scale}.")
    times = as_floats("times", times).detach().double().cpu()
    levels = torch.exp(-model.process.log_snr(times))
    if times.ndim != 1 or len(times) < 2 or not bool((levels.diff() < 0).all()):
        raise ValueError("times must be one grid from noise to data, with shape (n + 1,), n >= 1.")
    scales = torch.cat([scale / (1 - levels[1:] / levels[:-1]), torch.tensor([scale]).double()])

    def by_level(level: Tensor) -> Tensor:
        gaps = (level.log()[..., None] - levels.log()).abs()
        return scales[gaps.argmin(-1)]

    return classifier_free(model, by_level, interval=None, negative=None, **condition)
