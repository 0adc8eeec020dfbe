r"""Adapters: networks and denoisers of other libraries as score models."""

from .diffusers import DiffusersScore, from_diffusers
from .foreign import Foreign, Label, from_callable
from .k_diffusion import KDiffusionSampler
from .sources import (
    from_azula,
    from_edm,
    from_flow,
    from_guided_diffusion,
    from_k_diffusion,
    from_lucidrains,
    from_sbi,
    from_score_sde,
)

__all__ = [
    "DiffusersScore",
    "Foreign",
    "KDiffusionSampler",
    "Label",
    "from_azula",
    "from_callable",
    "from_diffusers",
    "from_edm",
    "from_flow",
    "from_guided_diffusion",
    "from_k_diffusion",
    "from_lucidrains",
    "from_sbi",
    "from_score_sde",
]
