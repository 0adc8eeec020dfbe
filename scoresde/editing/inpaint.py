r"""Inpainting: some entries of the data are known, the others are drawn.

"replacement" puts the known entries in place of their denoised estimate, so that they flow to what they
are, and any solver serves. "resampling" goes back up after each step, and takes it again, so that both
sides of the seam agree. "gradient" also pulls the other entries, as :func:`scoresde.guidance.pseudoinverse` does.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), appendix I.2
    | https://arxiv.org/abs/2011.13456
    | RePaint: Inpainting using Denoising Diffusion Probabilistic Models (Lugmayr et al., 2022), algorithm 1
    | https://arxiv.org/abs/2201.09865
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solvers import Solution
from solvers.brownian import EDITS, keyed_normal
from solvers.shapes import Scalar

from ..checks import check_count, check_data
from ..guidance import pseudoinverse
from ..guidance.combined import Combined
from ..models import ScoreModel
from ..sampling import decode
from ..settings import Settings, split
from ..transport import make_times
from .translate import in_data_units, perturbed, with_a_seed, with_other_noise

WAYS = ("replacement", "resampling", "gradient")
STEPS, REPEATS = 50, 5
STEPWISE = (
    "steps",
    "grid",
    "times",
    "t_min",
    "denoise",
)  # options that each short run has of its own


class Kept(Combined):
    r"""Creates the model of which some entries of the estimate are known.

    Arguments:
        model: The model.
        x: The data, with shape (B, *).
        known: 1 where it is known, 0 elsewhere, like the data.
    """

    def __init__(self, model: ScoreModel, x: Tensor, known: Tensor) -> None:
        super().__init__((model,), "kept")
        self.x, self.known = x, known

    def combined(self, denoised: list[Tensor], x: Tensor, level: Scalar) -> Tensor:
        return torch.lerp(denoised[0], self.x.to(x), self.known.to(x))

    def of(self, models: Sequence[ScoreModel], index: Tensor) -> ScoreModel:
        here = index.to(self.x.device)
        return Kept(models[0], self.x[here], self.known[here])


def masked(x: Tensor, known: Tensor) -> Tensor:
    r"""Returns what is known of data, and 0 elsewhere."""

    return known.to(x) * x


def inpaint(
    model: ScoreModel,
    x: Tensor,
    known: Tensor,
    *,
    method: str = "replacement",
    repeats: int | None = None,
    t_max: float | None = None,
    **options: Any,
) -> Solution:
    r"""Draws the entries of data that are not known.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *), of which only the known entries are used.
        known: True or 1 where data is known, with the shape of one sample, or (B, *).
        method: "replacement", "resampling" or "gradient".
        repeats: How often "resampling" takes each step, by default 5. Each time is a run of its own, in which
            multistep solvers are of order 1.
        t_max: The time at which it starts. By default, the last of the process. Elsewhere, all entries start
            from the data, noised.
        options: Those of :class:`scoresde.Settings`, and the conditions of the model. The default solver
            is "ancestral" with 50 steps.

    Raises:
        ValueError, TypeError: If an option or condition does not fit.
        SolverError: If the run fails.
    """

    if method not in WAYS:
        raise ValueError(f"method must be one of {', '.join(WAYS)}, but is {method!r}.")
    check_count("repeats", repeats, at_least=1)
    if repeats is not None and method != "resampling":
        raise ValueError(f"repeats= has no effect on method={method!r}; leave it.")
    options = with_a_seed({**_defaults(options), **options})
    x = _without_unknown(x, known) if t_max is None else x
    model, settings = split(model, options, len(x) if isinstance(x, Tensor) else None)
    x = check_data(model, x, "x", settings.dtype, settings.device)
    known = check_known(known, x)
    pulled = pseudoinverse(model, masked, known * x, iterations=1, known=known)
    kept = Kept(pulled if method == "gradient" else model, x, known)
    start = model.process.t_max if t_max is None else t_max
    given = {name: value for name, value in options.items() if hasattr(settings, name)}
    given = with_other_noise(given)
    z = perturbed(kept, known * x if t_max is None else x, start, given)
    if method == "resampling":
        e = _resampled(kept, z, start, repeats or REPEATS, settings, given)
    else:
        e = decode(kept, z, t_max=start, **given)
    return e if settings.denoise else in_data_units(model, e)


def check_known(known: Tensor, x: Tensor) -> Tensor:
    r"""Returns what is known of data as numbers like the data, refused unless they are 0 or 1."""

    if not isinstance(known, Tensor):
        raise TypeError(f"known must be a tensor of 0 and 1, but is a {type(known).__name__}.")
    if known.shape not in (x.shape[1:], x.shape, (1, *x.shape[1:])):
        raise ValueError(
            f"known must have shape {tuple(x.shape[1:])} or {tuple(x.shape)}, one entry per entry of the data, "
            f"but has {tuple(known.shape)}."
        )
    if not bool(((known == 0) | (known == 1)).all()):
        raise ValueError(
            "known must be 1 where data is known and 0 elsewhere, and nothing between."
        )
    return known.to(x).expand(x.shape)


def _defaults(options: dict[str, Any]) -> dict[str, Any]:
    if {"rtol", "atol"} & options.keys():
        return {}
    stepped = {"steps", "times"} & options.keys()
    return {"solver": "ancestral"} if stepped else {"solver": "ancestral", "steps": STEPS}


def _without_unknown(x: Tensor, known: Tensor) -> Tensor:
    r"""Data whose unknown entries are 0, whatever they held."""

    if not isinstance(x, Tensor) or not isinstance(known, Tensor):
        return x
    return torch.where(check_known(known, x) == 1, x, torch.zeros_like(x))


def _resampled(
    kept: Kept, z: Tensor, start: float, repeats: int, settings: Settings, options: dict[str, Any]
) -> Solution:
    process, x = kept.process, z
    _check_resampling(settings)
    stop = process.start_of("sampling") if settings.t_min is None else settings.t_min
    times = make_times(kept, start, stop, settings)
    (alphas, _), levels = process.scales(times), torch.exp(-process.log_snr(times))
    keys = settings.keys(torch.arange(len(x)))
    base = {name: value for name, value in options.items() if name not in STEPWISE}
    seeds: dict[str, Any] = {name: base.pop(name) for name in ("seed", "seeds") if name in base}
    calls, accepted = torch.zeros(2, len(x), dtype=torch.int64)
    for i in range(len(times) - 1):
        last = i + 2 == len(times)
        base |= {"times": times[i : i + 2], "t_min": float(times[i + 1]), "t_max": float(times[i])}
        for k in range(1 if last else repeats):
            number = i * repeats + k
            s = decode(kept, z, **base, denoise=last and settings.denoise, **_next(seeds, number))
            z, calls, accepted = s.x, calls + s.calls, accepted + s.accepted
            if k + 1 < repeats and not last:
                rise = (levels[i] ** 2 - levels[i + 1] ** 2).sqrt().item()
                fresh = keyed_normal(*keys, EDITS, number, x[0].numel()).to(x).reshape(x.shape)
                z = alphas[i].item() * (z / alphas[i + 1].item() + rise * fresh)
    return replace(s, times=times, calls=calls, accepted=accepted)


def _check_resampling(settings: Settings) -> None:
    if settings.adaptive:
        raise ValueError("method='resampling' repeats the steps of a grid: pass steps= or times=.")
    told = settings.path or settings.callback is not None
    if told or settings.max_calls is not None or settings.on_failure == "partial":
        raise ValueError(
            "method='resampling' is many short runs: leave path=, callback=, max_calls= and on_failure=, or "
            "use 'replacement'."
        )


def _next(seeds: dict[str, Any], number: int) -> dict[str, Any]:
    r"""Seeds of the noise of one step."""

    return {
        name: [seed + (number << 32) for seed in value]
        if name == "seeds"
        else value + (number << 32)
        for name, value in seeds.items()
    }
