r"""Distributions of the noise levels that a loss is computed at.

Each is a map from shares in (0, 1) to log-SNRs, its inverse distribution function, so stratified shares give
stratified levels. Shares rise from data to noise, like time. All are cut to the domain of the process.
"""

from .between import Between
from .by_loss import Importance, importance
from .distribution import Levels
from .normal import LogNormal, TimeLogitNormal
from .uniform import LogUniform, TimeUniform
from .warped import time_warp

__all__ = [
    "Between",
    "Importance",
    "Levels",
    "LogNormal",
    "LogUniform",
    "TimeLogitNormal",
    "TimeUniform",
    "importance",
    "time_warp",
]
