r"""The noise of a run: a Brownian motion of the process, as its solver sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers import ODE, Brownian, Increments, Path
from solvers.noise.brownian import seeds_of_rows
from solvers.shapes import align

from ..reverse.reverse import Reverse
from .settings import Settings


@dataclass(frozen=True)
class Normals(Brownian):
    r"""Creates a motion from given standard normals, of which each step takes the next.

    Arguments:
        normals: The normals, with shape (n, B, *).
    """

    normals: Tensor
    clocked = False

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        if step >= len(self.normals):
            raise ValueError(
                f"noise has {len(self.normals)} rows, but step {step + 1} needs one more."
            )
        z = self.normals[step]
        return z * align((t1 - t0).abs().sqrt().to(z), z)

    def increments(
        self, step: int, t0: Tensor, t1: Tensor, inside: Sequence[float]
    ) -> list[Tensor]:
        raise ValueError("this solver needs noise inside its steps; pass noise='path'.")

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError("this solver needs integrals of its noise; pass noise='path'.")

    def fresh(self, step: int, k: int) -> Tensor:
        raise ValueError("this solver needs noise between its steps; pass noise='path'.")

    def rows(self, index: Tensor) -> "Normals":
        return Normals(self.normals[:, index.to(self.normals.device)])


def see_noise(
    reverse: Reverse, x: Tensor, rows: Tensor, times: Tensor, settings: Settings
) -> Brownian | None:
    r"""Returns the noise of some samples, or `None` if there is none.

    Arguments:
        reverse: The problem.
        x: The states of these samples, with shape (B, *).
        rows: The indices of these samples in the run.
        times: The times of the process, which key the steps, so that part of a run has the noise of the whole.
        settings: The options.
    """

    if not settings.method.can.stochastic and not reverse.eta:
        given = {"noise": settings.noise is not None,
                 "eta_convention": settings.eta_convention != "canonical" and settings.eta is None}  # fmt: skip
        for name, is_given in given.items():
            if not is_given:
                continue
            cure = "" if settings.method.solves is ODE else " without eta="
            raise ValueError(
                f"{name}= has no effect on {settings.method}{cure}, which adds none; leave it out, or "
                "use a stochastic solver, such as 'ancestral'."
            )
        return None
    motion = _motion(x, rows, settings)
    motion = motion if settings.adaptive else motion.on(times)
    return reverse.motion(motion)


def _motion(x: Tensor, rows: Tensor, settings: Settings) -> Brownian:
    noise = settings.noise
    if isinstance(noise, Brownian):
        return noise.rows(rows) if settings.batch_size else noise
    if isinstance(noise, Tensor):
        if noise.shape[2:] != x.shape[1:]:
            raise ValueError(
                f"noise must have shape (steps, B, *) with samples of shape {tuple(x.shape[1:])}, but "
                f"has {tuple(noise.shape)}."
            )
        return Normals(noise.to(x)[:, rows.to(x.device)])
    seed, index = settings.keys(rows)
    kind = Path if noise_kind(settings) == "path" else Increments
    return kind(seed, index.to(x.device), x)


def keyed_by_rows(settings: Settings, x: Tensor) -> Settings:
    r"""Returns options whose seeds depend on the values of each row of data, besides its seed and index.

    This is for noise that is added to data: repeated edits then use noise that is independent of the data, while
    the same row always gets the same noise.
    """

    settings.check_batch(len(x), 0)
    seeds = seeds_of_rows(*settings.keys(torch.arange(len(x))), x).tolist()
    return replace(settings, seed=0, first_index=0, seeds=seeds)


def noise_kind(settings: Settings) -> str:
    r"""Returns the kind of the noise of a run, in a word."""

    if isinstance(settings.noise, str):
        return settings.noise
    if settings.noise is None:
        return "path" if settings.adaptive else "increments"
    return "given normals" if isinstance(settings.noise, Tensor) else "given motion"
