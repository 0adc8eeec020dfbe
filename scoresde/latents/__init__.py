r"""From data to latents, and the error of the way back."""

from .encode import encode
from .reconstruct import Reconstruction, reconstruct

__all__ = ["Reconstruction", "encode", "reconstruct"]
