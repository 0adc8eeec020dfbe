r"""Standard errors that few numbers tell, widened until twice as much holds the truth as often as it should.

An error that is known holds 95.4 % of all truths within twice itself. One that is estimated with
:math:`\nu` degrees of freedom follows Student's t, and is multiplied by
:math:`t_\nu^{-1}(0.977) / 2`. Sums of several estimates :math:`a_j` of variances have, by Satterthwaite's rule,
:math:`(\sum a_j)^2 / \sum a_j^2 \nu_j^{-1}` of them.

References:
    | An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946), equation (17)
    | On the Removal of Skewness by Transformation (Hall, 1992), section 2, for means of skewed numbers
"""

import math

import torch
from torch import Tensor

TWICE = (1 + math.erf(2**0.5)) / 2  # how often a normal number is below twice its deviation
SKEWED = 1.5  # of an error, for each unit of skewness over the root of how many numbers there are


def widening(freedom: Tensor) -> Tensor:
    r"""Returns the factor of a standard error with some degrees of freedom, of which one is the least."""

    from scipy.special import stdtrit  # which takes long to import

    found = stdtrit(freedom.detach().double().clamp(min=1.0).cpu().numpy(), TWICE)
    return torch.as_tensor(found / 2).to(freedom.device)


def freedom(shares: Tensor, each: float) -> Tensor:
    r"""Returns the degrees of freedom of a sum of variances, with shape (B,).

    Arguments:
        shares: The variances, with shape (n, B).
        each: The degrees of freedom of each. Squares of estimates with :math:`\nu` of them are too large by
            :math:`1 + 2 / \nu` on average, so that for estimates it is :math:`\nu + 2`.
    """

    squares = shares.square().sum(0) / each
    return torch.where(squares > 0, shares.sum(0).square() / squares, torch.inf)


def error_of_mean(values: Tensor) -> Tensor:
    r"""Returns the standard error of the mean of independent numbers, with shape (B,); NaN of a single one.

    Numbers that miss the long tail of a law of skewness :math:`\gamma` have a mean and a spread that are both too
    small. The expansion of Student's ratio moves by :math:`|\gamma| (2 t^2 + 1) / (6 \sqrt n)`, of which t = 2
    makes :math:`\frac{3}{4} |\gamma| / \sqrt n` of the error. Twice that is added, since the skewness that few
    numbers show is about half that of their law.

    Arguments:
        values: The numbers, with shape (n, B).
    """

    values, n = values.detach(), len(values)
    if n < 2:
        return torch.full_like(values[0], math.nan)
    apart = values - values.mean(0)
    square = apart.square().mean(0)
    error = (square / (n - 1)).sqrt()
    factor = widening(torch.full_like(square, n - 1))
    if n > 2:
        tail = apart.pow(3).mean(0) / square.pow(1.5).clamp(min=torch.finfo(square.dtype).tiny)
        factor = factor + SKEWED * tail.abs() * math.sqrt(n - 1) / (n - 2)
    return error * factor
