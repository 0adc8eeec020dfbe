r"""Losses of networks that are given their own estimate of the clean data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor
from solvers.noise.brownian import keyed_uniform

from ..doors.data import as_state
from ..models.checks import check_finite
from ..models.conditions import rows_of
from ..models.estimate import estimate
from ..models.score_model import ScoreModel
from ..models.self_conditioned import NAME, SelfConditioned
from .seeded import takes_seed

Loss = Callable[..., Tensor]
STREAM = 21  # of random numbers: which samples are given an estimate


@checked
def self_conditioned(loss: Loss, share: float = 0.5) -> Loss:
    r"""Returns a loss under which a network learns to use its own estimate.

    A share of the samples is given the estimate of a first call, through which no gradient flows; all others are
    given 0, as at the first call of a run,

    .. math:: \hat x = \begin{cases} D(x_t, t, 0) & \text{with probability } p \\ 0 & \text{else} \end{cases}
        \qquad L = \ell(D(x_t, t, \hat x), x_0) .

    Arguments:
        loss: A loss, called as `loss(model, x, log_snr, z, **condition)`, with shape (B,).
        share: The probability p, in [0, 1].

    Returns:
        The loss, called in the same way, and with `seed=`, by which samples are chosen. Its model is a
        :class:`scoresde.SelfConditioned`, or the model that this wraps.

    Raises:
        ValueError: If `share` is not in [0, 1].
        TypeError: If `loss` is a module.

    References:
        | Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning (Chen et al., 2022),
        | algorithm 1
        | https://arxiv.org/abs/2208.04202

    Examples:
        >>> def network(x, t, estimate):
        ...     return 0.5 * estimate + 1
        >>> inner = ss.NetworkScore(network, ss.EDM(), "data", conditions=["estimate"])
        >>> def error(model, x, log_snr, z, **condition):
        ...     t = model.process.time(log_snr)
        ...     return (model.denoise(model.process.perturb(x, t, z), t, **condition) - x).square().mean(1)
        >>> loss = ss.losses.self_conditioned(error, share=1.0)
        >>> loss(inner, torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 1))  # of estimates 1.5
        tensor([2.2500, 2.2500])
    """

    share = check_finite("share", share)
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], but is {share:g}.")
    if isinstance(loss, nn.Module):
        raise TypeError(
            f"loss must be a function, but is a {type(loss).__name__}, whose weights what is returned would hide; "
            "wrap it around: ss.losses.Uncertainty(ss.losses.self_conditioned(loss))."
        )
    draws = takes_seed(loss)

    def found(
        model: ScoreModel,
        x: Tensor,
        log_snr: Tensor,
        z: Tensor,
        *,
        seed: int = 0,
        **condition: Tensor,
    ) -> Tensor:
        inner = _inner(model)
        estimate = _estimate(inner, (x, log_snr, z), condition, share, seed)
        more = {"seed": seed} if draws else {}
        return loss(inner, x, log_snr, z, **{NAME: estimate}, **condition, **more)

    return found


def _inner(model: ScoreModel) -> ScoreModel:
    r"""The model that is called with an estimate."""

    if isinstance(model, SelfConditioned):
        inner = model.model
        assert isinstance(inner, ScoreModel)
        return inner
    if NAME not in model.conditions:
        raise ValueError(
            f"the model must take the condition {NAME!r} to be given its {NAME}; create it with "
            f"conditions=[{NAME!r}, ...], and a network that is called with {NAME}=."
        )
    return model


@torch.no_grad()
def _estimate(
    model: ScoreModel,
    of: tuple[Tensor, Tensor, Tensor],
    condition: dict[str, Tensor],
    share: float,
    seed: int,
) -> Tensor:
    r"""The estimates that samples are given, with shape (B, *)."""

    x, log_snr, z = as_state("x", of[0]), as_tensor("log_snr", of[1]), as_state("z", of[2])
    rows, given = torch.arange(len(x)), torch.zeros_like(x)
    some = (keyed_uniform(seed, rows, STREAM, 0, 1)[:, 0] < share).nonzero()[:, 0]
    if not len(some):
        return given
    t = model.process.time(log_snr.double()).expand(len(x))
    noisy = model.process.perturb(x.double(), t, z.double()).to(x)
    here = some.to(x.device)
    own = {NAME: given[here], **rows_of(condition, some)}
    given[here] = estimate(model.rows(some), noisy[here], t[some.to(t.device)], **own)
    return given
