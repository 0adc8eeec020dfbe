r"""Encoding of data to latents, and the error of the way back."""

from .encoding import encode
from .files import load_latents, save_latents
from .noise_path import NoisePath, encode_noise
from .round_trip import Reconstruction, reconstruct
from .statistics import BatchStatistics, LatentStatistics, latent_statistics

__all__ = [
    "BatchStatistics",
    "LatentStatistics",
    "NoisePath",
    "Reconstruction",
    "encode",
    "encode_noise",
    "latent_statistics",
    "load_latents",
    "reconstruct",
    "save_latents",
]
