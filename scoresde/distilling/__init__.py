r"""Few-step models: a student takes many steps of its teacher at once."""

from .agreeing import consistency
from .ends import flow_map
from .halving import progressive
from .paths import Trajectories, trajectories
from .student import Distilled

__all__ = [
    "Distilled",
    "Trajectories",
    "consistency",
    "flow_map",
    "progressive",
    "trajectories",
]
