r"""Checking that a model is the score it is said to be."""

from .result import ScoreCheck
from .verb import check_score

__all__ = ["ScoreCheck", "check_score"]
