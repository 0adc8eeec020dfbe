r"""Training of score models on data."""

from .failure import TrainingError
from .finetune import Tuned, fine_tune
from .reconstruction import reconstruct
from .result import Trained
from .verb import train

__all__ = ["Trained", "TrainingError", "Tuned", "fine_tune", "reconstruct", "train"]
