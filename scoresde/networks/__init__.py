r"""Small networks."""

from .dit import DiT
from .encoder import Encoder
from .mlp import MLP
from .unet import UNet
from .vae import VAE
from .vqvae import VQVAE

__all__ = ["MLP", "VAE", "VQVAE", "DiT", "Encoder", "UNet"]
