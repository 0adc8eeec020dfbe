r"""Training of score models on data."""

from .failure import TrainingError
from .reconstruction import reconstruct
from .result import Trained
from .verb import train

__all__ = ["Trained", "TrainingError", "reconstruct", "train"]
