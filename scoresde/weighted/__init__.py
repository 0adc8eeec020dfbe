r"""Samples whose law is the one that is meant, by weights: products of powers of densities, and posteriors."""

from .particles import Weighted
from .products import weighted_sample
from .twisted import twisted_sample

__all__ = ["Weighted", "twisted_sample", "weighted_sample"]
