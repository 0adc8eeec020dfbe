r"""Losses: functions of a model, data, noise levels and noise, with one number per sample."""

from .residuals import flow_consistency, fokker_planck, martingale

__all__ = ["flow_consistency", "fokker_planck", "martingale"]
