r"""Likelihoods, with their errors."""

from .bits import bits_per_dim, dequantize
from .result import Likelihood
from .verb import log_likelihood

__all__ = ["Likelihood", "bits_per_dim", "dequantize", "log_likelihood"]
