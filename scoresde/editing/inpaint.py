r"""Inpainting: some entries of the data are known, the others are drawn.

"replacement" puts the known entries in place of their denoised estimate, so that they flow to what they
are, and any solver serves. "resampling" goes back up after each step, and takes it again, so that both
sides of the seam agree. "gradient" also pulls the estimate of the other entries, by the gradient of
the density of what is known given the noisy state, as if the estimate were normal with variance

.. math:: r^2 = \frac{s^2 c^2}{s^2 + c^2} , \qquad
    D' = D + \frac{s^2}{r^2} J_D^T \, m \, (x - D)

for data of standard deviation c, and the mask m.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), appendix I.2
    | https://arxiv.org/abs/2011.13456
    | RePaint: Inpainting using Denoising Diffusion Probabilistic Models (Lugmayr et al., 2022), algorithm 1
    | https://arxiv.org/abs/2201.09865
    | Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023), equation (7)
    | https://openreview.net/forum?id=9_gsMA8MRKQ
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solvers import Solution
from solvers.brownian import FRESH, keyed_normal
from solvers.shapes import align

from ..checks import check_count, check_data
from ..models import ScoreModel
from ..sampling import decode
from ..settings import Settings, split
from ..transport import make_times
from .translate import SEEDING, perturbed, with_other_noise

WAYS = ("replacement", "resampling", "gradient")
STEPS = 50


class Kept(ScoreModel):
    r"""Creates the model of which some entries of the estimate are known.

    Arguments:
        model: The model.
        x: The data, with shape (B, *).
        known: 1 where it is known, 0 elsewhere, like the data.
        pull: Whether the other entries follow the gradient.
    """

    def __init__(self, model: ScoreModel, x: Tensor, known: Tensor, pull: bool) -> None:
        super().__init__()
        self.model, self.x, self.known, self.pull = model, x, known, pull
        self.resemble(model)
        self.guided = True

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        data, known = self.x.to(x), self.known.to(x)
        if not self.pull:
            return torch.lerp(self.model.denoise(x, t, **condition), data, known)
        alpha, sigma = self.process.scales(torch.as_tensor(t).detach().cpu().double())
        square, c = (sigma / alpha) ** 2, self.model.data_std**2
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            denoised = self.model.denoise(state, t, **condition)
            gap = known * (data - denoised.detach())
            (pulled,) = torch.autograd.grad(denoised, state, gap)
        force = ((square + c) / c * alpha).to(
            x
        )  # s^2 / r^2, and alpha since the state is scaled by it
        denoised = denoised.detach() + align(force, x) * pulled
        return torch.lerp(denoised, data, known)

    def rows(self, index: Tensor) -> ScoreModel:
        here = index.to(self.x.device)
        return Kept(self.model.rows(index), self.x[here], self.known[here], self.pull)


def inpaint(
    model: ScoreModel,
    x: Tensor,
    known: Tensor,
    *,
    method: str = "replacement",
    repeats: int = 5,
    t_max: float | None = None,
    **options: Any,
) -> Solution:
    r"""Draws the entries of data that are not known.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *), of which only the known entries are used.
        known: True or 1 where data is known, with the shape of one sample, or (B, *).
        method: "replacement", "resampling" or "gradient".
        repeats: How often "resampling" takes each step.
        t_max: The time at which it starts. By default, the last of the process.
        options: Those of :class:`scoresde.Settings`, and the conditions of the model. The default solver
            is "ancestral" with 50 steps.

    Raises:
        ValueError, TypeError: If an option or condition does not fit.
        SolverError: If the run fails.
    """

    if method not in WAYS:
        raise ValueError(f"method must be one of {', '.join(WAYS)}, but is {method!r}.")
    check_count("repeats", repeats, at_least=1)
    options = {"solver": "ancestral", "steps": STEPS, **options} if _free(options) else options
    model, settings = split(model, options, len(x) if isinstance(x, Tensor) else None)
    x = check_data(model, x, "x", settings.dtype, settings.device)
    known = check_known(known, x)
    kept = Kept(model, x, known, method == "gradient")
    start = model.process.t_max if t_max is None else t_max
    given = {name: value for name, value in options.items() if hasattr(settings, name)}
    given = with_other_noise(given)
    if method != "resampling":
        return decode(kept, perturbed(kept, known * x, start, given), t_max=start, **given)
    return _resampled(kept, x, start, repeats, settings, given)


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


def _free(options: dict[str, Any]) -> bool:
    r"""Whether the user leaves solver and steps to us."""

    return not {"solver", "steps", "grid", "times", "rtol", "atol"} & options.keys()


def _resampled(
    kept: Kept, x: Tensor, start: float, repeats: int, settings: Settings, options: dict[str, Any]
) -> Solution:
    process = kept.process
    if settings.adaptive:
        raise ValueError("method='resampling' repeats the steps of a grid: pass steps= or times=.")
    if settings.path or settings.callback is not None:
        raise ValueError(
            "method='resampling' goes up and down: it keeps no path and calls nobody."
        )
    stop = process.start_of("sampling") if settings.t_min is None else settings.t_min
    times = make_times(kept, start, stop, settings)
    (alphas, _), levels = process.scales(times), torch.exp(-process.log_snr(times))
    keys, alone = (
        settings.keys(torch.arange(len(x))),
        ("steps", "grid", "times", "t_min", "denoise"),
    )
    base = {name: value for name, value in options.items() if name not in alone}
    z, calls = (
        perturbed(kept, kept.known * x, start, options),
        torch.zeros(len(x), dtype=torch.int64),
    )
    seeds = {name: base.pop(name) for name in SEEDING if name in base and name.startswith("seed")}
    for i in range(len(times) - 1):
        for k in range(repeats if i + 2 < len(times) else 1):
            number = i * repeats + k
            last = i + 2 == len(times)
            s = decode(kept, z, t_max=float(times[i]), times=times[i : i + 2],
                       denoise=last and settings.denoise, **base, **_next(seeds, number))  # fmt: skip
            z, calls = s.x, calls + s.calls
            if k + 1 < repeats and not last:
                rise = (levels[i] ** 2 - levels[i + 1] ** 2).sqrt().item()
                fresh = keyed_normal(*keys, FRESH, number, x[0].numel()).to(x).reshape(x.shape)
                z = alphas[i].item() * (z / alphas[i + 1].item() + rise * fresh)
    return replace(s, times=times, calls=calls)


def _next(seeds: dict[str, Any], number: int) -> dict[str, Any]:
    r"""Seeds of the noise of one step."""

    return {
        name: [seed + (number << 32) for seed in value]
        if name == "seeds"
        else value + (number << 32)
        for name, value in seeds.items()
    }
