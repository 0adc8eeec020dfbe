r"""Are ranks uniform? Bands that hold a whole distribution function at once, and p-values.

If N ranks are uniform on 0 to L, the number of those below k has the law :math:`B(N, k / (L + 1))` for each k. The
test looks where this number is least likely, :math:`\gamma = \min_k 2 \min(P(B \le b_k), P(B \ge b_k))`, and
simulated uniform ranks say how small :math:`\gamma` is by chance.

References:
    | Graphical Test for Discrete Uniformity and its Applications in Goodness-of-Fit Evaluation and Multiple Sample
    | Comparison (Sailynoja et al., 2022), section 2
    | https://arxiv.org/abs/2103.10522
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

POINTS = 100  # places at which distribution functions are compared, at most
LEAST = 1000  # simulated sets of ranks, at least
BELOW = 20  # simulated sets beyond a level, on average, at least


@dataclass(frozen=True)
class Uniformity:
    r"""Creates the test of whether `count` ranks are uniform on 0 to `most`, at the level `level`."""

    count: int
    most: int
    level: float

    @cached_property
    def places(self) -> Tensor:
        r"""The ranks k at which the numbers of those below are compared, with shape (K,)."""

        return torch.linspace(1, self.most, min(self.most, POINTS)).round().long().unique()

    @property
    def shares(self) -> Tensor:
        r"""The probabilities of ranks below these, with shape (K,), in float64."""

        return self.places.double() / (self.most + 1)

    @cached_property
    def band(self) -> tuple[Tensor, Tensor]:
        r"""The least and the largest distribution function that the test accepts, each with shape (K,)."""

        accepted = self._likely >= self._least
        numbers = torch.arange(self.count + 1).expand_as(accepted)
        low = numbers.masked_fill(~accepted, self.count).amin(1)
        high = numbers.masked_fill(~accepted, 0).amax(1)
        return low.double() / self.count, high.double() / self.count

    def below(self, ranks: Tensor) -> Tensor:
        r"""Returns the numbers of ranks, with shape (N, d), below each place, with shape (K, d)."""

        return (ranks[None] < self.places[:, None, None]).sum(1)

    def p_values(self, ranks: Tensor) -> Tensor:
        r"""Returns the p-value of each column of ranks, with shape (d,), in float64."""

        found = self._gamma(self.below(ranks).T)
        smaller = torch.searchsorted(self._simulated, found, right=True)
        return (1 + smaller.double()) / (1 + len(self._simulated))

    @cached_property
    def _likely(self) -> Tensor:
        r"""How likely each number of ranks below each place is, from both sides, with shape (K, N + 1)."""

        from scipy.stats import binom  # slow to import

        numbers, p = np.arange(self.count + 1), self.shares.numpy()[:, None]
        least = np.minimum(binom.cdf(numbers, self.count, p), binom.sf(numbers - 1, self.count, p))
        return torch.from_numpy(np.minimum(2 * least, 1.0))

    def _gamma(self, below: Tensor) -> Tensor:
        r"""The least likely of several numbers, with shape (M, K)."""

        return self._likely[torch.arange(len(self.places)), below].amin(1)

    @cached_property
    def _simulated(self) -> Tensor:
        r"""The same for simulated uniform ranks, sorted."""

        edges = torch.cat([torch.zeros(1), self.shares, torch.ones(1)]).double()
        count = max(LEAST, math.ceil(BELOW / self.level))
        drawn = np.random.default_rng(0).multinomial(self.count, edges.diff().numpy(), count)
        return self._gamma(torch.from_numpy(drawn)[:, :-1].cumsum(1)).sort().values

    @property
    def _least(self) -> Tensor:
        r"""The smallest :math:`\gamma` that is accepted: those below it have p-values below the level."""

        rank = math.ceil(self.level * (1 + len(self._simulated)) - 1e-9) - 1
        return self._simulated[max(rank, 1) - 1]
