r"""Training by denoising."""

from .loop import Progress, train
from .loss import denoising_loss

__all__ = ["Progress", "denoising_loss", "train"]
