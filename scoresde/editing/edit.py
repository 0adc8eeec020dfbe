r"""Edits: up to a noise level with one model, down again with another."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from solvers import Solution
from solvers.brownian import START, keyed_normal

from ..checks import check_data
from ..latents import encode
from ..latents.encode import signal
from ..models import ScoreModel
from ..process import Use
from ..sampling import decode, way_back
from ..settings import Settings

OTHER_NOISE = 1 << 61  # what an edit's seed differs by from that of samples


def edit(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    *,
    noise_level: float | None = None,
    strength: float | None = None,
    method: Literal["encode", "noise"] = "encode",
    **options: Any,
) -> Solution:
    r"""Edits data: all steps are spent below the noise level to which it goes.

    With "encode", the source model's probability flow carries data up, and the target model's
    carries it down: what both agree on stays. With "noise", fresh noise takes data up, and the
    source is not asked.

    Arguments:
        source: The model of the data as it is, with its conditions bound.
        target: The model of the data as it shall be, with its conditions bound.
        x: Data, with shape (B, *).
        noise_level: The noise level :math:`\sigma / \alpha` to which it goes.
        strength: Instead of it, the fraction in (0, 1] of the span of log-SNR.
        method: "encode" or "noise".
        options: Those of :class:`scoresde.Settings`. The default solver is "dopri5" with
            tolerances of 1e-5.

    Raises:
        ValueError, TypeError: If an option does not fit, or not exactly one of `noise_level` and
            `strength` is given.

    References:
        | Dual Diffusion Implicit Bridges (Su et al., 2023), algorithm 1, for "encode"
        | https://arxiv.org/abs/2203.08382
        | SDEdit (Meng et al., 2022), algorithm 1, for "noise"
        | https://arxiv.org/abs/2108.01073
    """

    if method not in ("encode", "noise"):
        raise ValueError(f"method must be 'encode' or 'noise', but is {method!r}.")
    if "times" in options:
        raise ValueError(
            "times= has no effect: noise_level= or strength= says where an edit goes."
        )
    if source.process != target.process:
        raise ValueError(
            f"source and target must share a process, but have {source.process} and "
            f"{target.process}."
        )
    use: Use = "sampling" if method == "noise" else "encoding"
    start = target.process.start_of(use) if options.get("t_min") is None else options["t_min"]
    t_max = _middle(target, noise_level, strength, start)
    if method == "noise":  # of its own, since the sample may have been made of that of the seed
        if options.get("seeds") is not None:
            options = {**options, "seeds": [int(s) ^ OTHER_NOISE for s in options["seeds"]]}
        else:
            options = {**options, "seed": (options.get("seed", 0) or 0) ^ OTHER_NOISE}
        z = _perturbed(target, x, t_max, Settings(**_settings_of(options)))
        return decode(target, z, t_max=t_max, **{"solver": "exponential", **options})
    up = encode(source, x, t_max=t_max, **{k: v for k, v in options.items() if k != "denoise"})
    denoise = options.get("denoise", True)
    down = decode(target, up.x, t_max=t_max, denoise=denoise, **way_back(up, options))
    return replace(down, calls=up.calls + down.calls)


def _middle(
    model: ScoreModel, noise_level: float | None, strength: float | None, start: float
) -> float:
    process = model.process
    if (noise_level is None) == (strength is None):
        given = "both" if strength is not None else "neither"
        raise ValueError(f"give exactly one of noise_level= and strength=, but got {given}.")
    low, high = process.noise_level(start), process.noise_level(process.t_max)
    if strength is not None:
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], but is {strength}.")
        noise_level = low * (high / low) ** strength
    assert noise_level is not None
    if not low < noise_level <= high * (1 + 1e-9) or not math.isfinite(noise_level):
        raise ValueError(
            f"noise_level must lie in ({low:.4g}, {high:.4g}], the noise levels of "
            f"{type(process).__name__}, but is {noise_level}."
        )
    return process.at_noise_level(noise_level)


def _perturbed(model: ScoreModel, x: Tensor, t: float, settings: Settings) -> Tensor:
    x = check_data(model, x, "x", settings.dtype, settings.device)
    settings.check_batch(len(x), 0)
    z = keyed_normal(*settings.keys(torch.arange(len(x))), START, 0, x[0].numel())
    time = torch.tensor(t, dtype=torch.float64)
    return signal(model, t) * x + model.process.scales(time)[1].item() * z.to(x).reshape(x.shape)


def _settings_of(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: options[name]
        for name in ("seed", "seeds", "first_index", "dtype", "device")
        if name in options
    }
