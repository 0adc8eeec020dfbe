r"""Strengths of their own: entries of the data that are held until a noise level, and free below it.

An entry with strength u is held while the noise level lies above

.. math:: s_u = s_{min} \, (s_{max} / s_{min})^u ,

the level to which an edit of that strength goes up. Until then, it has the law of the data under noise; from
there on, that of the target. So an entry that is independent of the others is edited as if all had its strength.

References:
    | Differential Diffusion: Giving Each Pixel Its Strength (Levin and Fried, 2023), section 3.2
    | https://arxiv.org/abs/2306.00950
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..doors.data import as_floats
from ..guidance import Noisy, Rule
from ..processes.process import Process

SLACK = 1 + 1e-6  # by which levels may be rounded


@dataclass(frozen=True)
class Kept(Rule):
    r"""A replacement of the estimates of held entries by their values.

    Arguments:
        x: The data, with shape (B, *).
        release: The noise levels above which entries are held: 0 for always, and infinite for never.
    """

    x: Tensor
    release: Tensor

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        return torch.lerp(denoised[0], self.x.to(noisy.x), held(self.release, noisy))


@dataclass(frozen=True)
class Followed(Rule):
    r"""A replacement of the estimates of held entries by those of the second model, the source of an edit.

    Arguments:
        release: The noise levels above which entries are held.
    """

    release: Tensor

    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        target, source = denoised
        return torch.lerp(target, source, held(self.release, noisy))


def held(release: Tensor, noisy: Noisy) -> Tensor:
    r"""Returns 1 for the entries that are held at a noise level, and 0 for the others."""

    return (noisy.level > release * SLACK).to(noisy.x)


def release_levels(process: Process, start: float, strength: Tensor) -> Tensor:
    r"""Returns the noise levels of strengths on [0, 1], above a time at which an edit ends; 0 stays 0."""

    low, high = process.noise_level(start), process.noise_level(process.t_max)
    return torch.where(strength > 0, low * (high / low) ** strength, 0.0)


def per_entry(name: str, value: object, x: Tensor) -> Tensor:
    r"""Returns numbers per entry or per sample of data, expanded to its shape.

    Arguments:
        name: The name of the argument.
        value: Numbers with the shape of one sample; with a shape that broadcasts with (B, *); or with shape
            (B,), one per sample.
        x: The data, with shape (B, *).

    Raises:
        ValueError: If it has another shape, or if (B,) is also the shape of a sample.
    """

    found = as_floats(name, value, dtype=x.dtype).to(x.device)
    if found.shape == x.shape[:1] == x.shape[1:]:
        raise ValueError(
            f"{name} of shape {tuple(found.shape)} may be one per sample or one per entry; pass {name}[:, None] "
            f"for one per sample, or {name}[None] for one per entry."
        )
    if found.shape == x.shape[:1] != x.shape[1:]:
        found = found.reshape(-1, *(1,) * (x.ndim - 1))
    elif found.shape == x.shape[1:]:
        found = found[None]
    fits = found.ndim == x.ndim and all(
        n in (1, m) for n, m in zip(found.shape, x.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} must be one number, one per sample, with shape ({len(x)},), or one per entry, with a shape "
            f"that broadcasts with {tuple(x.shape)}, but has shape {tuple(found.shape)}."
        )
    return found.expand(x.shape)
