r"""Solvers and grids compared by measurement, on the user's own model."""

from .comparison import Comparison
from .suggestion import Suggestion, suggest
from .verb import compare

__all__ = ["Comparison", "Suggestion", "compare", "suggest"]
