r"""The round trip from data to latents and back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers import Solution

from ..models import ScoreModel
from ..sampling import decode, way_back
from .encode import encode, signal


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


@torch.no_grad()
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
    back = decode(
        model, latent.x, t_max=float(latent.times[-1]), denoise=False, **way_back(latent, options)
    )
    y = back.x / signal(model, float(latent.times[0]))
    error = (y - x.to(y)).flatten(1)
    rms, largest = error.square().mean(1).sqrt(), error.abs().amax(1)
    return Reconstruction(y, rms, largest, latent, latent.calls + back.calls)
