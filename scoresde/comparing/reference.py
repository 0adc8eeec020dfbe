r"""Reference samples: accurate runs with an estimate of their accuracy."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..runs.options import Options
from ..sampling import sample
from .precision import half_of, in_full, without_half

TOLERANCE = 1e-5
NOISY_STEPS = 256


@dataclass(frozen=True)
class Reference:
    r"""Samples to compare with.

    Arguments:
        x: The samples.
        gap: The distance of a looser run from them, with shape (B,): the error of the looser run, which is
            larger than that of `x`.
        calls: The mean number of calls of the tighter run.
        made: How it was made, in words.
        precision: The name of the dtype in which the network computes, if that is half precision.
        floor: The distance of that network's own flow from `x`, with shape (B,).
    """

    x: Tensor
    gap: Tensor
    calls: float
    made: str
    precision: str = ""
    floor: Tensor | None = None

    @property
    def halved(self) -> dict[str, object]:
        r"""What is said of half precision, if there is any."""

        if self.floor is None:
            return {}
        return {"precision": self.precision, "floor": self.floor.median().item()}


def rms(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the root mean square difference of each sample, with shape (B,), in float64."""

    return (x.double() - y.double()).flatten(1).square().mean(1).sqrt().cpu()


def flow_reference(
    model: ScoreModel,
    shape: tuple[int, ...],
    seed: int,
    tolerance: float,
    options: Options,
) -> Reference:
    r"""Returns samples of the probability flow, compared with samples at ten times the tolerance.

    For a network in half precision, this is the flow of the same weights in float32. How far its own flow is from
    it, at a tolerance that its rounding allows, is the floor of all errors.
    """

    solver = "exponential" if model.process.has_scales else "dopri5"
    options = {**options, **_exactly(model), "solver": solver, "seed": seed}
    half = half_of(model)
    with without_half():
        full = model if half is None else in_full(model)
        loose, tight = (
            sample(full, shape, rtol=tol, atol=tol, **options)
            for tol in (10 * tolerance, tolerance)
        )
    found = Reference(
        tight.x,
        rms(loose.x, tight.x),
        tight.calls.double().mean().item(),
        f"{solver} at tolerance {tolerance:g}{'' if half is None else ', with the network in float32'}",
    )
    if half is None:
        return found
    least = max(tolerance, torch.finfo(half).eps / 8)
    own = sample(model, shape, rtol=least, atol=least, **options)
    return replace(found, precision=str(half).removeprefix("torch."), floor=rms(own.x, tight.x))


def noisy_reference(
    model: ScoreModel, shape: tuple[int, ...], seed: int, options: Options
) -> Reference:
    r"""Returns samples of the reverse SDE on one Brownian path, compared with half as many steps."""

    options = {**options, **_exactly(model), "solver": "sra1", "seed": seed, "noise": "path"}
    if model.process.has_levels:
        options |= {"clock": "log_snr", "grid": "log_snr"}
    coarse, fine = (
        sample(model, shape, steps=steps, **options) for steps in (NOISY_STEPS // 2, NOISY_STEPS)
    )
    return Reference(
        fine.x,
        rms(coarse.x, fine.x),
        fine.calls.double().mean().item(),
        f"sra1 in {NOISY_STEPS} steps",
    )


def _exactly(model: ScoreModel) -> dict[str, torch.dtype]:
    r"""States in float64, unless a network is a function that receives them as they are."""

    for part in model.modules():
        if isinstance(part, NetworkScore) and not (
            isinstance(part.network, nn.Module) and any(True for _ in part.network.parameters())
        ):
            return {}
    return {"dtype": torch.float64}
