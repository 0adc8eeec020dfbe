r"""Small networks."""

from .encoder import Encoder
from .unet import UNet
from .vae import VAE
from .vqvae import VQVAE

__all__ = ["VAE", "VQVAE", "Encoder", "UNet"]
