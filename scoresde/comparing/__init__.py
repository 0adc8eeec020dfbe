r"""Comparison of solvers and grids by measurement, on your own model."""

from .comparison import Comparison
from .suggestion import Suggestion, suggest
from .verb import compare

__all__ = ["Comparison", "Suggestion", "compare", "suggest"]
