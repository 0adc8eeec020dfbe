r"""Small networks."""

from .encoder import Encoder
from .unet import UNet

__all__ = ["Encoder", "UNet"]
