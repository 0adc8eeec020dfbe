r"""The geometry of sampling: states, estimates and steps of a run, and what a plane shows of them."""

from .measures import high_dimensions, measure
from .plane import Plane
from .trajectory import Density, Trajectory, follow

__all__ = ["Density", "Plane", "Trajectory", "follow", "high_dimensions", "measure"]
