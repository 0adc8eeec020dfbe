r"""Training by denoising."""

from .finetune import Tuned, fine_tune
from .loop import Progress, train
from .loss import denoising_loss

__all__ = ["Progress", "Tuned", "denoising_loss", "fine_tune", "train"]
