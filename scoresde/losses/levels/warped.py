r"""Levels at which a loss rises evenly: time warping."""

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ...doors.data import as_floats, as_times
from ...models.checks import check_count, check_number
from ...processes.process import Process
from .by_loss import Importance
from .distribution import Levels
from .uniform import LogUniform

LEAST = 1e-12  # probability of a bin


@checked
def time_warp(
    process: Process,
    log_snr: Tensor,
    loss: Tensor,
    *,
    base: Levels | None = None,
    bins: int = 32,
    floor: float = 0.1,
) -> Importance:
    r"""Returns levels in proportion to the slope of past losses, so that the loss rises evenly with the share.

    A loss that rises with the noise from :math:`L_0` at `t_min` to :math:`L_1` at `t_max`, as the cross-entropy of
    symbols does, is itself the distribution function,

    .. math:: F(\lambda) = \frac{L(\lambda) - L_0}{L_1 - L_0} ,

    so levels at which nothing or everything about the symbols is known already are seldom drawn. L is the rising
    function, linear between the edges of the bins, with the least squared error.

    Arguments:
        process: The process.
        log_snr: The log-SNRs of past losses, with shape (N,).
        loss: These losses, with shape (N,).
        base: The distribution whose shares are cut into bins. By default, uniform in log-SNR.
        bins: The number of bins, of equal probability under `base`.
        floor: The fraction of the draws that follow `base`.

    Raises:
        ValueError: If there is not one loss per level.

    References:
        | Continuous Diffusion for Categorical Data (Dieleman et al., 2022), section on time warping
        | https://arxiv.org/abs/2211.15089

    Examples:
        >>> process = ss.VE(ss.Geometric(0.01, 100.0))
        >>> log_snr = ss.losses.levels.LogUniform().log_snr(process, torch.linspace(0, 1, 9))
        >>> loss = torch.tensor([0.0, 0, 0, 0, 0, 1, 2, 3, 4])  # which rises in the second half alone
        >>> [round(p, 3) for p in ss.losses.levels.time_warp(process, log_snr, loss, bins=2, floor=0.0).chances]
        [0.0, 1.0]
    """

    from scipy.optimize import nnls  # slow to import

    base, bins = base or LogUniform(), check_count("bins", bins, at_least=1)
    floor = check_number("floor", floor, 0.0, 1.0)
    known = as_floats("loss", loss, least=1, dtype=torch.float64).flatten().detach().cpu()
    given = as_times("log_snr", log_snr).double().flatten().cpu()
    if given.shape != known.shape:
        raise ValueError(
            f"loss must have one number per log_snr, {len(given)}, but has {len(known)}."
        )
    place = base.share(process, given) * bins
    risen = (place[:, None] - torch.arange(bins)).clamp(0, 1)  # of each bin, below the level
    start = known.min()  # so that no coefficient is negative
    table = torch.cat([torch.ones_like(known)[:, None], risen, (known - start)[:, None]], 1)
    small = torch.linalg.qr(table, mode="r").R
    rises = torch.as_tensor(nnls(small[:, :-1].numpy(), small[:, -1].numpy())[0])[1:]
    if not bool(rises.sum() > 0):
        rises = torch.ones_like(rises)
    chances = (1 - floor) * rises / rises.sum() + floor / bins
    return Importance(tuple(chances.clamp(min=LEAST).tolist()), base)
