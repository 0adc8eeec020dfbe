r"""Denoised data kept inside a range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.shapes import align

from ..models.checks import check_finite
from ..models.score_model import ScoreModel
from .asked import Noisy
from .guided import Guided
from .rule import Rule


@checked
def thresholded(
    model: ScoreModel, limit: float = 1.0, quantile: float | None = None
) -> ScoreModel:
    r"""Returns the model with its denoised data clipped, separately for each sample.

    A static threshold clips to [-limit, limit]. A dynamic one clips to a quantile q of the absolute values
    of the sample, if that is larger, and divides by it, :math:`\operatorname{clip}(D, -q, q) \, limit / q`.

    A clipped flow is not invertible, and its density is not that of a diffusion.

    Arguments:
        model: The model.
        limit: The largest absolute value of the data.
        quantile: The quantile in (0, 1], for a dynamic threshold; the paper uses 0.995.

    Raises:
        ValueError: If `limit` is not positive, or `quantile` not in (0, 1].

    References:
        | Photorealistic Text-to-Image Diffusion Models (Saharia et al., 2022), section 2.3
        | https://arxiv.org/abs/2205.11487

    Examples:
        >>> clipped = ss.guidance.thresholded(model, 0.25)
        >>> clipped.denoise(torch.ones(1, 2), torch.tensor([0.5]))  # 0.5, clipped
        tensor([[0.2500, 0.2500]])
    """

    limit, quantile = check_finite("limit", limit), check_finite("quantile", quantile)
    if not limit > 0:
        raise ValueError(f"limit must be positive, but is {limit}.")
    if quantile is not None and not 0 < quantile <= 1:
        raise ValueError(f"quantile must lie in (0, 1], but is {quantile}.")
    return Guided((model,), Thresholded(limit, quantile))


@dataclass(frozen=True)
class Thresholded(Rule):
    r"""See :func:`thresholded`; the quantile that counts is at most `most`."""

    limit: float
    quantile: float | None
    most: float = math.inf

    @property
    def pools(self) -> bool:
        return self.quantile is not None

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        [D] = denoised
        if self.quantile is None:
            return D.clamp(-self.limit, self.limit)
        size = torch.quantile(D.abs().flatten(1), self.quantile, dim=1)
        size = align(size.clamp(min=self.limit).clamp(max=self.most), D)
        return D.maximum(-size).minimum(size) * (self.limit / size)
