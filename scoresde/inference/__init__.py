r"""Simulation-based inference: posteriors of parameters given observations, and tests of them."""

from .calibration import Calibration, Coverage, sbc, tarp
from .composition import factors, iid
from .draws import Draws, draw

__all__ = [
    "Calibration",
    "Coverage",
    "Draws",
    "draw",
    "factors",
    "iid",
    "sbc",
    "tarp",
]
