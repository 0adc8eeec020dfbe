r"""Training by denoising."""

from .finetune import Tuned, fine_tune
from .loop import Progress, train

__all__ = ["Progress", "Tuned", "fine_tune", "train"]
