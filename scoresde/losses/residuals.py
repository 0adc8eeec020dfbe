r"""Residuals of a model as regularisers: what every score of noised data satisfies, whatever the data.

They do not see the data other than through the places at which they are taken, so they are added to a loss that
does. Those with derivatives take the second derivative of the network once per probe.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from solvers.divergence import signs
from solvers.doors.signatures import checked
from solvers.shapes import align

from ..checking.continuation import STEP, continued, normals, squared
from ..checking.terms import Terms, reach, terms
from ..models.checks import check_count, check_number
from ..models.score_model import ScoreModel
from .levels.distribution import level_ends
from .noised import check_independent, noised

LARGEST = 0.5  # step of the log-SNR


@checked
def martingale(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    step: float = STEP,
    draws: int = 2,
    seed: int = 0,
    **condition: Tensor,
) -> Tensor:
    r"""Returns the squared martingale residual, with shape (B,), without derivatives by the state.

    .. math:: \frac{1}{d \, h^2} \big| \mathbb{E}[D(x_{\lambda + h}) \mid x_\lambda] - D(x_\lambda) \big|^2

    along the model's reverse SDE. The square is estimated without bias from independent continuations, so it can
    be negative. Each continuation calls the model four times.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, with shape (B, *).
        step: The step h of the log-SNR, at most 0.5. The square has a bias of the order of its square.
        draws: The number of continuations, at least 2.
        seed: The seed of their noise. Give each training step another one.
        condition: The conditions.

    References:
        | Consistent Diffusion Models: Mitigating Sampling Drift by Learning to be Consistent (Daras et al.,
        | 2023)
        | https://arxiv.org/abs/2302.09057

    Examples:
        >>> x = torch.ones(2, 2)
        >>> loss = ss.losses.martingale(model, x, torch.zeros(2), x)
        >>> bool((loss.abs() < 1e-4).all())  # of an exact model
        True
    """

    draws = check_count("draws", draws, at_least=2)
    step = check_number("step", step, 1e-3, LARGEST)
    known = _at(model, "martingale", x, log_snr, z, condition, step)
    noise = normals(seed, torch.arange(len(known.X), device=known.X.device), 0, draws, known.X)
    found = continued(model, known.X, known.log_snr, noise, known.condition, step)
    return squared(found).to(known.X)


@checked
def flow_consistency(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    probes: int | None = 2,
    seed: int = 0,
    **condition: Tensor,
) -> Tensor:
    r"""Returns the squared residual of the score along the probability flow, with shape (B,).

    .. math:: \frac{1}{d} \big| \partial_\lambda D + (J + J^T) v + s^2 \nabla \operatorname{div} D \big|^2 ,
        \qquad v = D - x / \alpha , \quad s = \sigma / \alpha ,

    with the Jacobian J of D as a function of :math:`x / \alpha`. It is 0 if the score stays that of the density
    which the flow carries.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, with shape (B, *).
        probes: The number of random probes, at least 2, or `None` for exact sums over all entries.
        seed: The seed of the probes. Give each training step another one.
        condition: The conditions.

    Examples:
        >>> x = torch.ones(2, 2)
        >>> loss = ss.losses.flow_consistency(model, x, torch.zeros(2), x)
        >>> bool((loss.abs() < 1e-4).all())  # of an exact model
        True
    """

    found = _terms(model, x, log_snr, z, probes, seed, condition, "flow_consistency")
    return squared(found.flow).to(found.change)


@checked
def fokker_planck(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    *,
    probes: int | None = 2,
    seed: int = 0,
    **condition: Tensor,
) -> Tensor:
    r"""Returns the squared residual of the score's Fokker-Planck equation, with shape (B,).

    .. math:: \frac{1}{d} \big| \partial_\lambda D + 2 J^T v + s^2 \nabla \operatorname{div} D \big|^2
        = \frac{4 s^8}{d} \Big| \partial_u S - \frac{1}{2} \nabla \big( \operatorname{div} S + |S|^2 \big) \Big|^2

    for the score S of :math:`x / \alpha` and :math:`u = s^2`. The other symbols and the arguments are those of
    :func:`scoresde.losses.flow_consistency`.

    Arguments:
        model: The score model.
        x: Clean data, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, with shape (B, *).
        probes: The number of random probes, at least 2, or `None` for exact sums over all entries.
        seed: The seed of the probes.
        condition: The conditions.

    References:
        | FP-Diffusion: Improving Score-based Diffusion Models by Enforcing the Underlying Score Fokker-Planck
        | Equation (Lai et al., 2023)
        | https://arxiv.org/abs/2210.04296

    Examples:
        >>> x = torch.ones(2, 2)
        >>> loss = ss.losses.fokker_planck(model, x, torch.zeros(2), x)
        >>> bool((loss.abs() < 1e-4).all())  # of an exact model
        True
    """

    found = _terms(model, x, log_snr, z, probes, seed, condition, "fokker_planck")
    return squared(found.fokker_planck).to(found.change)


class _Place(NamedTuple):
    X: Tensor
    log_snr: Tensor
    condition: dict[str, Tensor]


def _at(
    model: ScoreModel,
    name: str,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    condition: dict[str, Tensor],
    step: float | None = None,
) -> _Place:
    r"""The places at which a residual is taken: noisy data over alpha, with room for derivatives or a step."""

    check_independent(model, name)
    known = noised(model, x, log_snr, z, condition)
    first, last = level_ends(model.process)
    edge = reach(known.x.dtype)
    below, above = (edge, edge) if step is None else (0.0, step)
    clock = known.log_snr.clamp(below - last, -first - above)
    X = known.x + align(torch.exp(-clock).to(known.x), known.x) * known.z
    return _Place(X, clock, dict(known.condition))


def _terms(
    model: ScoreModel,
    x: Tensor,
    log_snr: Tensor,
    z: Tensor,
    probes: int | None,
    seed: int,
    condition: dict[str, Tensor],
    name: str,
) -> Terms:
    count = check_count("probes", probes, at_least=2)
    known = _at(model, name, x, log_snr, z, condition)
    v = None
    if count is not None:
        rows = torch.arange(len(known.X), device=known.X.device)
        v = signs(seed, rows, 0, count, known.X[0].numel()).to(known.X)
        v = v.reshape(count, *known.X.shape)
    return terms(model, known.X, known.log_snr, v, known.condition)
