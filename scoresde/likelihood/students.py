r"""Standard errors from few numbers, widened so that two of them have the right coverage.

Two known standard errors cover the truth in 95.4 % of cases. With an estimate from :math:`\nu` degrees of
freedom, the ratio follows Student's t, so the estimate is multiplied by :math:`t_\nu^{-1}(0.977) / 2`. A sum of
variance estimates :math:`a_j` has, by Satterthwaite's rule, :math:`(\sum a_j)^2 / \sum a_j^2 \nu_j^{-1}` degrees
of freedom.

References:
    | An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946), equation (17)
    | On the Removal of Skewness by Transformation (Hall, 1992), section 2, for means of skewed numbers
"""

import math

import torch
from torch import Tensor

TWICE = (1 + math.erf(2**0.5)) / 2  # probability that a normal number is below twice its deviation
SKEWED = 1.5  # of an error, per unit of skewness over the root of the count of numbers


def widening(freedom: Tensor) -> Tensor:
    r"""Returns the factor of a standard error for its degrees of freedom, which are at least one."""

    from scipy.special import stdtrit  # slow to import

    found = stdtrit(freedom.detach().double().clamp(min=1.0).cpu().numpy(), TWICE)
    return torch.as_tensor(found / 2).to(freedom.device)


def freedom(shares: Tensor, each: float) -> Tensor:
    r"""Returns the degrees of freedom of a sum of variances, with shape (B,).

    Arguments:
        shares: The variances, with shape (n, B).
        each: The degrees of freedom of each. Squared estimates with :math:`\nu` of them are too large by the
            factor :math:`1 + 2 / \nu` on average, so for estimates pass :math:`\nu + 2`.
    """

    squares = shares.square().sum(0) / each
    return torch.where(squares > 0, shares.sum(0).square() / squares, torch.inf)


def error_of_mean(values: Tensor) -> Tensor:
    r"""Returns the standard error of the mean of independent numbers, with shape (B,); NaN for one number.

    Numbers that miss the long tail of a law with skewness :math:`\gamma` have a mean and a spread that are both
    too small. The expansion of Student's ratio shifts by :math:`|\gamma| (2 t^2 + 1) / (6 \sqrt n)`, which for t
    = 2 is :math:`\frac{3}{4} |\gamma| / \sqrt n` of the error. Twice this amount is added, since the skewness of
    few numbers is about half that of their law.

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
