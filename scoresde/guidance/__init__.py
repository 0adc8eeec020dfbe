r"""Guidance: functions from score model to score model."""

from .classifier import classifier
from .classifier_free import classifier_free
from .combined import Combined, Noisy
from .composed import experts, mixture, product, within
from .extrapolated import adaptive_projected, autoguidance, rescaled, zero_star
from .feedback import feedback
from .inverse import moment_matching, posterior_sampling, pseudoinverse
from .operators import joined
from .optimised import optimised
from .plus_plus import plus_plus
from .pulled import universal
from .replaced import replacement
from .thresholded import thresholded

__all__ = [
    "Combined",
    "Noisy",
    "adaptive_projected",
    "autoguidance",
    "classifier",
    "classifier_free",
    "experts",
    "feedback",
    "joined",
    "mixture",
    "moment_matching",
    "optimised",
    "plus_plus",
    "posterior_sampling",
    "product",
    "pseudoinverse",
    "replacement",
    "rescaled",
    "thresholded",
    "universal",
    "within",
    "zero_star",
]
