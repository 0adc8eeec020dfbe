r"""Weighted samples with the exact law: products of powers of densities, and posteriors."""

from .particles import Weighted
from .products import weighted_sample
from .twisted import twisted_sample

__all__ = ["Weighted", "twisted_sample", "weighted_sample"]
