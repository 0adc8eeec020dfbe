r"""The round trip from data to latents and back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers import Solution
from solvers.shapes import align

from ..models import ScoreModel
from ..sampling import decode, way_back
from .encode import encode


@dataclass(frozen=True)
class Reconstruction:
    r"""The outcome of a round trip.

    Arguments:
        x: The data that came back, with shape (B, *).
        rms: The root mean square error of each sample, with shape (B,).
        max: The largest error of each sample, with shape (B,).
        latent: The solution of the way there.
        calls: The network calls of both ways, with shape (B,).
    """

    x: Tensor
    rms: Tensor
    max: Tensor
    latent: Solution
    calls: Tensor


def reconstruct(model: ScoreModel, x: Tensor, **options: Any) -> Reconstruction:
    r"""Encodes data and decodes it again with the same solver, on the same grid backwards.

    There is no last denoising, which would hide or add an error.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        options: Those of :func:`scoresde.encode`.
    """

    if options.pop("denoise", False):
        raise ValueError("denoise=True has no place in a round trip: it would not be one.")
    latent = encode(model, x, **options)
    end = float(latent.times[-1]) if latent.times.ndim == 1 else None
    back = decode(model, latent.x, t_max=end, denoise=False, **way_back(latent, options))
    y = back.x / align(model.process.scales(latent.times[0])[0].to(back.x), back.x)
    error = (y - x.to(y)).flatten(1)
    ended = torch.tensor([s != "ok" for s in back.status], device=error.device)
    error[ended] = torch.nan  # a trip that ended on the way has no error
    rms, largest = error.square().mean(1).sqrt(), error.abs().amax(1)
    return Reconstruction(y, rms, largest, latent, latent.calls + back.calls)
