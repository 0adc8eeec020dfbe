r"""The geometry of sampling: states, estimates and steps of a run, and their projections to a plane."""

from .measures import high_dimensions, measure
from .plane import Plane
from .trajectory import Density, Trajectory, follow

__all__ = ["Density", "Plane", "Trajectory", "follow", "high_dimensions", "measure"]
