r"""The round trip from data to latents and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers import Event, Solution, Solver

from ..doors.data import as_state
from ..doors.warning import warn
from ..models.checks import is_state
from ..models.conditions import Condition, verb
from ..models.masked import kept_of, share_of
from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from ..models.spoken import as_latents
from ..models.transforms import Data
from ..reverse.reverse import Clock
from ..runs.options import Failures, Gradients, Levels, Times
from ..runs.takes import Takes
from ..sampling import return_from
from .encoding import ENCODE, encode
from .statistics import LatentStatistics, at_prior, latent_statistics

RECONSTRUCT = Takes("a round trip, which follows the probability flow", *ENCODE.names)
POOR = 0.1  # of the data: a round-trip error that gives a warning


@dataclass(frozen=True)
class Reconstruction:
    r"""The result of a round trip.

    Arguments:
        x: The reconstructed data, with shape (B, *).
        rms: The root mean square error of each sample over its entries, with shape (B,).
        max: The largest error of each sample, with shape (B,).
        latent: The solution of the encoding.
        statistics: Statistics that compare the latents with noise; `None` if encoding did not end at the prior,
            or the model is masked.
        calls: The network calls of encoding and decoding, with shape (B,).

    Examples:
        >>> r = ss.reconstruct(model, torch.full((3, 2), 0.5), solver="lattice_heun", steps=8)
        >>> r.rms.tolist()
        [0.0, 0.0, 0.0]
    """

    x: Tensor
    rms: Tensor
    max: Tensor
    latent: Solution
    statistics: LatentStatistics | None
    calls: Tensor

    def __repr__(self) -> str:
        return (
            f"Reconstruction({len(self.x)} samples, {self.latent.provenance['solver']}, calls "
            f"{int(self.calls.min())}-{int(self.calls.max())}, rms error {self.rms.nanmean():.2g}, largest "
            f"{self.max.nan_to_num().max():.2g}{'' if self.statistics is None else f'; {self.statistics}'})"
        )


@verb(data=("x",), gives=lambda found, model: _in_form(found, model))
def reconstruct(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    one_state: bool = False,
    t_max: float | None = None,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    levels: Levels | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    path: bool = False,
    callback: Callable[[Event], object] | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    **condition: Condition,
) -> Reconstruction:
    r"""Encodes data and decodes it again, with the same solver on the same grid backwards.

    There is no last denoising, which would hide or add an error.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        one_state: Whether to ignore the companion state of a reversible solver, as if only the latents had been
            kept.
        t_max: The time of the latents. By default, the last time of the process.
        condition: The conditions of the model. The options are those of :func:`scoresde.encode`.

    Examples:
        >>> r = ss.reconstruct(model, torch.ones(3, 2), steps=40)
        >>> bool(r.rms.max() < 0.01)
        True
    """

    options = ENCODE.said(locals())
    RECONSTRUCT.refuse(options)
    given, x = x, as_state("x", x)
    latent = encode(model, given, t_max=t_max, **options)
    kept = replace(latent, companion=None) if one_state else latent
    back = return_from(model, kept, options, denoise=False)
    y = model.process.leave(back.x, latent.times[0])
    if is_state(model, x):
        x = model.process.leave(x, latent.times[0])
    error = _apart(model, y, kept_of(model, x.to(y))).flatten(1)
    ended = torch.tensor([s != "ok" for s in back.status], device=error.device)
    error[ended] = torch.nan  # a round trip that ended early has no error
    there = share_of(model)
    share = 1.0 if there is None else there.to(error.device)
    rms, largest = (error.abs().square().mean(1) / share).sqrt(), error.abs().amax(1)
    _warn(model, float(rms.nanmedian()))
    bound = model.given(**condition)
    told = at_prior(model, latent) and latent.ok and there is None
    told = told and model.learned != "bridge"  # whose latents are data, too
    known = latent_statistics(bound, latent.x) if told else None
    return Reconstruction(y, rms, largest, latent, known, latent.calls + back.calls)


def _apart(model: ScoreModel, y: Tensor, x: Tensor) -> Tensor:
    r"""The difference of the data of two states."""

    form = model.transform
    return y - x if form is None else form.outside(y) - form.outside(x)


def _in_form(found: Reconstruction, model: ScoreModel) -> Reconstruction:
    r"""The result in the user's form."""

    assert model.transform is not None
    return replace(
        found, x=model.transform.outside(found.x), latent=as_latents(found.latent, model)
    )


def _warn(model: ScoreModel, rms: float) -> None:
    if model.guided and rms > POOR * scale_of(model):
        warn(
            f"the round trip is off by {rms:.2g}: guidance makes the flow stiff, and the errors of "
            "encoding grow in decoding. Encode without guidance, take more steps or a solver of higher "
            "order, or use 'lattice_heun', which undoes any flow."
        )
