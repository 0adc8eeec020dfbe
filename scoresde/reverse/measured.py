r"""The linear part whose rates and weights were measured on a model.

With :math:`z = X - m` along each axis, the flow is

.. math:: dz = (-l z + r N) \, d\lambda , \qquad N = \frac{D - m - (1 - l) z}{r} ,

where the rate :math:`l(\lambda)` is 1 less the mean slope of D, and :math:`r(\lambda)` is the root mean square of
:math:`r N` (:mod:`scoresde.models.statistics`). So N has a root mean square of 1 and no slope on
average, and is what multistep methods take for a polynomial. Its weight follows from
:math:`\Phi(s, t) = e^{-\int_s^t l \, d\lambda}`.

References:
    | DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics (Zheng et al., 2023),
    | section 3.1
    | https://arxiv.org/abs/2310.13268
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..models.curves import Curves, Spline
from .linear_part import Frame


@dataclass(frozen=True)
class Measured(Frame):
    r"""The linear part for given rates and sizes by noise level, without noise.

    What the rates exceed those of Gaussian data by is interpolated, so the latter are exact at any noise level.

    Arguments:
        curves: The rates and sizes.
    """

    curves: Curves = field(kw_only=True)

    @property
    def key(self) -> None:  # curves are too long to compare
        return None

    def decay(self, s: Tensor, t: Tensor) -> Tensor:
        return super().decay(s, t) * torch.exp(self._excess.integral(s) - self._excess.integral(t))

    def weight(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return self.decay(u, t) * torch.exp(self.curves.log_size(u))

    def remainder(self, t: Tensor) -> tuple[Tensor, Tensor]:
        b = torch.exp(-self.curves.log_size(t))
        return -b * (self.variances / self.total(t) - self._excess(t)), b

    @cached_property
    def _excess(self) -> Spline:
        return self.curves.excess(self.variances)
