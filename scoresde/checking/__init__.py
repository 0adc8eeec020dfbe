r"""Checking that a model is the score it is said to be, and that its noise levels agree with each other."""

from .residual_table import LevelResiduals, Residuals, Squared
from .result import ScoreCheck
from .self_consistency import residuals
from .verb import check_score

__all__ = ["LevelResiduals", "Residuals", "ScoreCheck", "Squared", "check_score", "residuals"]
