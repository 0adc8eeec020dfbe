r"""Solvers and grids compared by measurement, on the user's own model."""

from .compare import compare
from .comparison import Comparison

__all__ = ["Comparison", "compare"]
