r"""The Gaussian with the moments of the data, whose flow is known: a control variate for traces.

At the noise level :math:`s = e^u`, data :math:`\mathcal{N}(m, U \Lambda U^T)` is denoised by
:math:`D(y) = m + U G U^T (y - m)` with the gains :math:`G = \Lambda (\Lambda + s^2)^{-1}`, and

.. math:: \int_{u_0}^{u_1} (d - \operatorname{tr} G) \, du
    = \frac{1}{2} \sum_i \log \frac{\lambda_i + s_1^2}{\lambda_i + s_0^2} .
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.data_moments import Moments
from ..models.scale import scale_of
from ..models.score_model import ScoreModel


@dataclass(frozen=True)
class Companion:
    r"""Creates the Gaussian, in coordinates that make its covariance diagonal.

    Arguments:
        moments: Its mean and covariance.
        known: Whether these are the data's own, and not made from a single variance.
    """

    moments: Moments
    known: bool

    @staticmethod
    def of(model: ScoreModel, x: Tensor) -> "Companion":
        r"""Returns the companion of a model, from its moments or the scale of the data."""

        if not model.process.has_scales:  # whose flow no Gaussian is known to follow
            return Companion(
                Moments(torch.zeros_like(x[0]), None, x.new_zeros(x[0].numel())), False
            )
        if model.moments is not None:
            return Companion(model.moments.like(x), True)
        variances = torch.full((x[0].numel(),), scale_of(model) ** 2).to(x)
        return Companion(Moments(torch.zeros_like(x[0]), None, variances), False)

    @property
    def size(self) -> int:
        r"""The number of coordinates."""

        return len(self._variances)

    def gains(self, u: Tensor) -> Tensor:
        r"""Returns the gains of the coordinates, with shape (*u.shape, c), in float64."""

        variances = self._variances.to(u.device)
        return variances / (variances + torch.exp(2 * u.double())[..., None])

    def trace(self, u: Tensor) -> Tensor:
        r"""Returns the sum of the gains over all directions of the data, with the shape of `u`."""

        return (self.gains(u) * self.counts.to(u.device)).sum(-1)

    def change(self, u: Tensor) -> Tensor:
        r"""Returns :math:`-\frac{1}{2} \, d \operatorname{tr} G / du`, with the shape of `u`."""

        gains = self.gains(u)
        return (gains * (1 - gains) * self.counts.to(u.device)).sum(-1)

    def integral(self, first: float, last: float) -> float:
        r"""Returns :math:`\int (d - \operatorname{tr} G) \, du` between two logarithms of noise levels."""

        total = self._variances + torch.exp(torch.tensor([[2 * first], [2 * last]]).double())
        low, high = (total.log() * self.counts).sum(1).tolist()
        return float(high - low) / 2

    def directions(self, z: Tensor) -> Tensor:
        r"""Returns vectors of samples with coordinates z, with shape (k, B, *).

        Arguments:
            z: The coordinates, with shape (k, B, c). Parts along the axes are removed from the others.
        """

        known, (k, rows) = self.moments, z.shape[:2]
        flat = z.reshape(k * rows, -1).to(known.mean)
        if known.rest is not None:
            assert known.basis is not None
            d = known.mean.numel()
            others = flat[:, :d]
            flat = torch.cat([others - others @ known.basis @ known.basis.T, flat[:, d:]], 1)
        return known.join(flat).reshape(k, rows, *known.mean.shape)

    def split(self, v: Tensor) -> Tensor:
        r"""Returns the coordinates of vectors with shape (k, B, *), with shape (k, B, c), in float64."""

        k, rows = v.shape[:2]
        coordinates = self.moments.split(v.reshape(k * rows, *v.shape[2:]))
        return coordinates.double().reshape(k, rows, -1)

    def denoise(self, y: Tensor, u: Tensor) -> Tensor:
        r"""Returns its denoised data for y, at the noise levels :math:`e^u` of the rows."""

        z = self.split((y - self.moments.mean)[None])
        return self.moments.mean + self.directions(self.gains(u.to(y.device)) * z)[0]

    def log_prob(self, y: Tensor, u: float) -> Tensor:
        r"""Returns its log-density at the noise level :math:`e^u`, with shape (B,)."""

        total = self._variances.to(y.device) + math.exp(2 * u)
        z = self.split((y - self.moments.mean)[None])[0]
        counts = self.counts.to(y.device)
        return -((z.square() / total).sum(1) + ((2 * math.pi * total).log() * counts).sum()) / 2

    @property
    def _variances(self) -> Tensor:
        return self.moments.coordinates

    @property
    def counts(self) -> Tensor:
        r"""The number of directions per coordinate: the d - k directions that no axis covers share theirs."""

        return self.moments.counts
