r"""Small networks."""

from .dit import DiT
from .encoder import Encoder
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "DiT", "Encoder", "UNet"]
