r"""Adapters: networks and denoisers of other libraries as score models."""

from .autoencoder import Autoencoder, autoencoder_of, pictures
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
    "Autoencoder",
    "DiffusersScore",
    "Foreign",
    "KDiffusionSampler",
    "Label",
    "autoencoder_of",
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
    "pictures",
]
