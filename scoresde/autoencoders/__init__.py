r"""Diffusion models as denoising autoencoders, and models in the latent space of an autoencoder."""

from .bound import PixelBound, pixel_elbo
from .features import layers, representation
from .fit import fit_autoencoder
from .losses import quantization_loss, variational_loss
from .probe import Probe, linear_probe

__all__ = [
    "PixelBound",
    "Probe",
    "fit_autoencoder",
    "layers",
    "linear_probe",
    "pixel_elbo",
    "quantization_loss",
    "representation",
    "variational_loss",
]
