r"""Data at the noise levels of a loss, with the checks that all losses share."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from solvers.doors.values import as_tensor

from ..doors.data import as_state, as_times
from ..models.conditions import check_conditions
from ..models.masked import refuse_mask
from ..models.score_model import ScoreModel


class Noised(NamedTuple):
    r"""Clean and noisy data.

    Arguments:
        x: Clean data, with shape (B, *).
        z: Its noise, or its partner in a pair, with the shape of states.
        state: The noisy data :math:`\alpha x + \sigma z`, or :math:`A x + L z` with matrices.
        t: The times, with shape (B,), in float64 on the CPU.
        log_snr: The logs of :math:`\alpha / \sigma`, with shape (B,), in float64 on the CPU.
        condition: The conditions.
    """

    x: Tensor
    z: Tensor
    state: Tensor
    t: Tensor
    log_snr: Tensor
    condition: Mapping[str, Tensor]


def noised(
    model: ScoreModel, x: Tensor, log_snr: Tensor, z: Tensor, condition: Mapping[str, object]
) -> Noised:
    r"""Returns data at given noise levels; levels beyond the ends of the process become these ends.

    Raises:
        TypeError, ValueError: If the data, the levels or the conditions do not fit each other or the model.
    """

    process = model.process
    if not process.has_levels:
        raise ValueError(
            f"log_snr is no level of {process}, which has no alpha and sigma; train a model of another process, "
            "such as ss.VP()."
        )
    refuse_mask(model, "this loss of the model")
    form = model.transform
    if form is not None and form.whole and not as_tensor("x", x).is_floating_point():
        x = form.inside("x", x)
    x, z = as_state("x", x), as_state("z", z)
    wanted = tuple(process.prior_shape(tuple(x.shape)))
    if tuple(z.shape) != wanted:
        of = "x" if wanted == tuple(x.shape) else "states"
        raise ValueError(f"z must have the shape of {of}, {wanted}, but has {tuple(z.shape)}.")
    given = as_times("log_snr", log_snr).detach().double().cpu()
    if given.shape not in ((), (1,), (len(x),)):
        raise ValueError(f"log_snr must have shape ({len(x)},), but has {tuple(given.shape)}.")
    t = process.time(given.expand(len(x)))
    known = check_conditions(model, condition, len(x))
    state = process.perturb(x, t, z.to(x))
    return Noised(x, z.to(x), state, t, process.log_snr(t), known)  # type: ignore[arg-type]


def mean_square(error: Tensor) -> Tensor:
    r"""Returns the mean of the squared entries of each sample, with shape (B,)."""

    return error.square().flatten(1).mean(1)


def sum_square(error: Tensor) -> Tensor:
    r"""Returns the sum of the squared entries of each sample, with shape (B,)."""

    return error.square().flatten(1).sum(1)


def check_independent(model: ScoreModel, name: str) -> None:
    r"""Refuses a model of pairs for a loss that holds only for noise that does not depend on the data."""

    if model.learned != "score":
        raise ValueError(
            f"model must learn scores for losses.{name}, but learns a {model.learned!r} of pairs, for which this "
            "loss means nothing; use losses.denoising or losses.interpolant."
        )
