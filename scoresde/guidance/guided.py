r"""What guided models are: they say what all times at once need, and the denoised data follows."""

import torch
from torch import Tensor

from ..models.score_model import ScoreModel, check_time


class Guided(ScoreModel):
    r"""Abstract guided model. A subclass says :meth:`scoresde.ScoreModel.combine`."""

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        t = check_time(self.process, t, x)
        return self._at(t, torch.zeros_like(t), torch.ones_like(t), x, condition)
