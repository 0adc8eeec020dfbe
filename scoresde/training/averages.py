r"""Averages of weights over the steps of training, in the form of a power function.

After n steps, the weights :math:`\theta_k` of step k count by

.. math:: w_k = (k^{\gamma + 1} - (k - 1)^{\gamma + 1}) / n^{\gamma + 1} ,

which is the integral of :math:`p(\tau) = (\gamma + 1) \tau^\gamma / n^{\gamma + 1}` over the step. The standard
deviation of this profile is proportional to n: its share of n is the width of the average.

References:
    | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), section 3
    | https://arxiv.org/abs/2312.02696
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

WIDEST = 0.28  # of a profile; the flat one has 1 / sqrt(12)
CELLS = 20_000  # intervals of steps at most, on which profiles are compared


def exponent(width: float) -> float:
    r"""Returns the exponent :math:`\gamma` of the profile with a width.

    It is the largest root of :math:`\mathrm{width}^2 (\gamma + 2)^2 (\gamma + 3) = \gamma + 1`.
    """

    inverse = width**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots.real.max())


def check_width(name: str, width: float) -> float:
    r"""Refuses a width that no profile has."""

    if not 0 < width <= WIDEST:
        raise ValueError(
            f"{name} must be the width of an average, above 0 and at most {WIDEST} of the steps, but is {width:g}."
        )
    return width


def averaged(network: nn.Module, width: float) -> AveragedModel:
    r"""Returns an average of a network's weights, to be updated after each step."""

    power = exponent(width) + 1

    def update(mean: Sequence[Tensor], now: Sequence[Tensor], seen: Tensor | int) -> None:
        kept = (
            1 - 1 / (int(made.n_averaged) + 1)
        ) ** power  # of the CPU: `seen` waits for a device
        torch._foreach_lerp_(list(mean), list(now), 1 - kept)

    made = AveragedModel(network, multi_avg_fn=torch.no_grad()(update))
    return made.eval().requires_grad_(False)


def profile(width: float, steps: int, edges: Tensor) -> Tensor:
    r"""Returns the weight of each interval of steps in an average that was taken after `steps` steps.

    Arguments:
        width: The width of the average.
        steps: The number of steps after which it was taken.
        edges: The ends of the intervals, with shape (m + 1,).

    Returns:
        The weights, with shape (m,), which sum to 1 if the intervals cover all steps.
    """

    return ((edges / steps).clamp(0, 1) ** (exponent(width) + 1)).diff()


def combination(kept: Sequence[tuple[float, int]], width: float, steps: int) -> Tensor:
    r"""Returns the coefficients with which kept averages approximate that of another width.

    They minimise the squared difference of the profiles, and sum to 1, so that weights which stay are kept.

    Arguments:
        kept: The widths, and the numbers of steps after which the averages were taken.
        width: The width to reconstruct.
        steps: The number of steps after which it would have been taken.
    """

    edges = torch.linspace(0, steps, min(steps, CELLS) + 1, dtype=torch.float64).round()
    scale = edges.diff().sqrt()
    *others, last = [profile(*one, edges) / scale for one in kept]
    missing = profile(width, steps, edges) / scale - last
    if not others:
        return torch.ones(1, dtype=torch.float64)
    known = torch.stack(others, 1) - last[:, None]
    shares = torch.linalg.lstsq(known, missing[:, None], driver="gelsd").solution[:, 0]
    return torch.cat([shares, 1 - shares.sum()[None]])
