r"""Guidance: functions from score model to score model."""

from .by_classifier import classifier
from .by_loss import optimised
from .combined import Combined, Noisy
from .composed import experts, mixture, product, within
from .conditional import classifier_free
from .extrapolated import adaptive_projected, autoguidance, rescaled, zero_star
from .feedback_scale import feedback
from .inverse import moment_matching, posterior_sampling, pseudoinverse
from .operators import joined
from .pulled import universal
from .renoised import plus_plus
from .replaced import replacement
from .thresholds import thresholded

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
