r"""Guidance: functions from score models to score models."""

from .affine import Affine, autoguidance, product
from .asked import Noisy
from .conditional import classifier_free
from .guided import Guided
from .inverse import moment_matching, posterior_sampling, pseudoinverse, replacement
from .losses import classifier, optimised, universal
from .mixtures import feedback, mixture
from .operators import joined
from .projected import adaptive_projected, rescaled, zero_star
from .pulled import Known, Pull
from .ranges import experts, within
from .renoised import plus_plus
from .rule import Rule
from .thresholds import thresholded

__all__ = [
    "Affine",
    "Guided",
    "Known",
    "Noisy",
    "Pull",
    "Rule",
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
