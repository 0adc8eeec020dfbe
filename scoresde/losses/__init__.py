r"""Losses: functions of model, data and noise level, with one number per sample."""

from .self_conditioning import self_conditioned

__all__ = ["self_conditioned"]
