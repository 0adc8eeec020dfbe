r"""Solvers and grids compared by measurement, on the user's own model."""

from .compare import compare
from .comparison import Comparison
from .suggest import Suggestion, suggest

__all__ = ["Comparison", "Suggestion", "compare", "suggest"]
