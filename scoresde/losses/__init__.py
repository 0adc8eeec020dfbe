r"""Losses: functions of a model, data, noise levels and noise, with one number per sample."""

from . import levels
from .denoised import denoising
from .elbo import continuous_elbo, discrete_elbo
from .of_symbols import cross_entropy
from .own_noise import interpolant
from .pairing import pair, reflow_pairs
from .residuals import flow_consistency, fokker_planck, martingale
from .score_matching import implicit_score, sliced_score
from .self_conditioning import self_conditioned
from .uncertainty import Uncertainty

__all__ = [
    "Uncertainty",
    "continuous_elbo",
    "cross_entropy",
    "denoising",
    "discrete_elbo",
    "flow_consistency",
    "fokker_planck",
    "implicit_score",
    "interpolant",
    "levels",
    "martingale",
    "pair",
    "reflow_pairs",
    "self_conditioned",
    "sliced_score",
]
