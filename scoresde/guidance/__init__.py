r"""Guidance: functions from score model to score model."""

from .classifier import classifier
from .classifier_free import classifier_free
from .composed import experts, product
from .extrapolated import adaptive_projected, autoguidance, rescaled, zero_star
from .inverse import moment_matching, posterior_sampling, pseudoinverse
from .plus_plus import plus_plus
from .pulled import universal
from .thresholded import thresholded

__all__ = [
    "adaptive_projected",
    "autoguidance",
    "classifier",
    "classifier_free",
    "experts",
    "moment_matching",
    "plus_plus",
    "posterior_sampling",
    "product",
    "pseudoinverse",
    "rescaled",
    "thresholded",
    "universal",
    "zero_star",
]
