r"""Likelihoods and their errors."""

from .bits import bits_per_dim, dequantize, quantize
from .bounds import Bound, elbo
from .classification import classify
from .discrete import discrete_log_likelihood
from .modes import Modes, find_modes
from .result import Likelihood
from .three_views import path_density, views
from .transitions import transition_log_prob
from .variational import VariationalNoise, fit_noise
from .verb import log_likelihood

__all__ = [
    "Bound",
    "Likelihood",
    "Modes",
    "VariationalNoise",
    "bits_per_dim",
    "classify",
    "dequantize",
    "discrete_log_likelihood",
    "elbo",
    "find_modes",
    "fit_noise",
    "log_likelihood",
    "path_density",
    "quantize",
    "transition_log_prob",
    "views",
]
