r"""The weights by which exponential methods combine the values of :math:`N`.

Variation of constants solves a semi-linear problem over a step from s to t as

.. math:: x(t) = \Phi(s, t) \, x(s) + \int_s^t \Phi(u, t) B(u) \, N(u, x(u)) \, du + \xi .

A method replaces :math:`N` by a polynomial through known values, in a variable of its choice. Its weights then
follow from the moments of :math:`\Phi B` and the places of the values; published methods differ in the variable
and in simplifications of the moments. The moments are Gauss-Legendre sums in float64, exact to round-off.

References:
    | Exponential Integrators (Hochbruck and Ostermann, 2010), sections 2.1 and 2.5
    | https://doi.org/10.1017/S0962492910000048
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..problem import Linear


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    r"""The points and weights of Gauss and Legendre on [0, 1]."""

    points, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(count))
    return (points + 1) / 2, weights / 2


FULL = _gauss(24)  # exact to round-off for any step
SHORT = _gauss(8)  # off by about 1e-8 for a step in which the noise level falls by a factor of 7
STIFF = math.exp(-30)  # the smallest decay over a piece of a step that these points resolve


def quadrature(
    linear: Linear, s: Tensor, t: Tensor, decay: Tensor, rule: tuple[Tensor, Tensor] = FULL
) -> tuple[Tensor, Tensor]:
    r"""Returns points and weights on [0, 1] for integrals of :math:`\Phi(u, t) B(u)` over steps from s to t.

    Where :math:`\Phi(s, t)` is tiny, as with much noise, all of the weight lies in a layer at the end;
    pieces are halved towards the end until the last one resolves it.

    Arguments:
        linear: The linear part of the problem.
        s: The times at which the steps start, with shape (\*).
        t: The times at which they end, with shape (\*).
        decay: The decay :math:`\Phi(s, t)` of the steps.
        rule: The points and weights of a piece.
    """

    halvings = 0
    while halvings < 60 and bool((linear.least(decay) < STIFF).any()):
        halvings += 1
        decay = linear.decay(torch.lerp(t, s, 0.5**halvings), t)
    if not halvings:
        return rule
    edges = [0.0] + [1 - 0.5**k for k in range(1, halvings + 1)] + [1.0]
    places = torch.tensor(edges, dtype=torch.float64)
    lows, lengths = places[:-1], places.diff()
    points = lows[:, None] + lengths[:, None] * rule[0]
    return points.flatten(), (lengths[:, None] * rule[1]).flatten()


class Moments(NamedTuple):
    r"""The data from which the weights of a step follow.

    Arguments:
        nodes: The places of the k values, as fractions of the step, with shape (\*, k).
        powers: The integrals of the weight times :math:`\theta^i` for i < k, with shape (\*, k, c).
        edge: A function that returns the step length times the weight at its end, with shape (\*, c).
    """

    nodes: Tensor
    powers: Tensor
    edge: Callable[[], Tensor]


Rule = Callable[[Moments], Moments]


def exact(m: Moments) -> Moments:
    r"""The polynomial is integrated exactly: exponential Adams methods."""

    return m


def midpoint(m: Moments) -> Moments:
    r"""The polynomial's midpoint value holds for the whole step: DPM-Solver++ 2M, UniP-2 (bh2).

    References:
        | DPM-Solver++ (Lu et al., 2022), algorithm 2
        | https://arxiv.org/abs/2211.01095
    """

    half = torch.pow(0.5, torch.arange(m.powers.shape[-2], dtype=torch.float64))
    return m._replace(powers=m.powers[..., :1, :] * half[:, None])


def edge(m: Moments) -> Moments:
    r"""The slope is weighted as if the weight were its value at the end: UniP-2 (bh1), SA-Solver-2.

    References:
        | UniPC (Zhao et al., 2023), section 3.2
        | https://arxiv.org/abs/2302.04867
    """

    return m._replace(powers=torch.stack([m.powers[..., 0, :], m.edge() / 2], dim=-2))


def halved(m: Moments) -> Moments:
    r"""The curvature counts half: DPM-Solver++ 3M as published, without its factor of 2."""

    powers = m.powers.clone()
    powers[..., 2, :] /= 2
    return m._replace(powers=powers)


def even(m: Moments) -> Moments:
    r"""Steps and weight are assumed constant: the Adams-Bashforth coefficients.

    References:
        | Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al., 2022), equation (12)
        | https://arxiv.org/abs/2202.09778
    """

    k = torch.arange(m.powers.shape[-2], dtype=torch.float64)
    return m._replace(
        nodes=(-k).expand_as(m.nodes), powers=m.powers[..., :1, :] / (1 + k)[:, None]
    )


def _edge(linear: Linear, s: Tensor, t: Tensor) -> Tensor:
    return (t - s)[..., None] * linear.weight(t, s, t)


def weights(
    linear: Linear,
    s: Tensor,
    t: Tensor,
    decay: Tensor,
    nodes: Tensor,
    rule: Rule = exact,
    variable: str = "clock",
) -> Tensor:
    r"""Returns the weights of k values in steps from s to t, with shape (\*, k, c).

    Arguments:
        linear: The linear part of the problem.
        s: The times at which the steps start, with shape (\*).
        t: The times at which they end, with shape (\*).
        decay: The decay :math:`\Phi(s, t)` of the steps.
        nodes: The times of the values, with shape (\*, k).
        rule: The rule that turns the moments into weights.
        variable: The variable in which N is approximated by a polynomial.
    """

    h = (t - s)[..., None]
    points, gauss = quadrature(linear, s, t, decay)
    u = s[..., None] + h * points
    weight = linear.weight(u, s[..., None], t[..., None]) * (h * gauss)[..., None]
    first, last = linear.variable(variable, s[..., None]), linear.variable(variable, t[..., None])
    theta = (linear.variable(variable, u) - first) / (last - first)
    places = (linear.variable(variable, nodes) - first) / (last - first)
    powers = [(weight * theta[..., None] ** i).sum(-2) for i in range(nodes.shape[-1])]
    m = rule(Moments(places, torch.stack(powers, dim=-2), partial(_edge, linear, s, t)))
    if m.nodes.shape[-1] == 1:  # one value has all of the weight
        return m.powers
    vandermonde = torch.stack([m.nodes**i for i in range(nodes.shape[-1])], dim=-2)
    return torch.linalg.solve(vandermonde, m.powers)
