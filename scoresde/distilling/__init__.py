r"""Few-step models: a student takes many steps of its teacher at once."""

from .consistency import consistency
from .flow_map import flow_map
from .progressive import progressive
from .student import Distilled
from .trajectories import Trajectories, trajectories

__all__ = [
    "Distilled",
    "Trajectories",
    "consistency",
    "flow_map",
    "progressive",
    "trajectories",
]
