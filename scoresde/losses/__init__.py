r"""Losses: functions of a model, data, noise levels and noise, with one number per sample."""

from . import levels
from .denoised import denoising
from .elbo import continuous_elbo, discrete_elbo
from .own_noise import interpolant
from .pairing import pair, reflow_pairs
from .score_matching import implicit_score, sliced_score
from .uncertainty import Uncertainty

__all__ = [
    "Uncertainty",
    "continuous_elbo",
    "denoising",
    "discrete_elbo",
    "implicit_score",
    "interpolant",
    "levels",
    "pair",
    "reflow_pairs",
    "sliced_score",
]
