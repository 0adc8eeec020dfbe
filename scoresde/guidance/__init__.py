r"""Guidance: functions from score model to score model."""

from .classifier_free import classifier_free

__all__ = ["classifier_free"]
