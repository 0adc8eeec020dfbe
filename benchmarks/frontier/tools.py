r"""What members share: a model by noise level, levels, and runs of solvers from given noise."""

from collections.abc import Callable

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.comparing.cells import options_of, steps_within
from scoresde.models.scale import scale_of
from scoresde.runs.grids import grid_times

from ..distance import T_MIN

Denoiser = Callable[[Tensor, float], Tensor]  # of x / alpha and the noise level


def denoiser(model: ss.ScoreModel) -> Denoiser:
    r"""Returns the model's denoised data as a function of :math:`x / \alpha` and the noise level."""

    process = model.process

    def denoise(x: Tensor, level: float) -> Tensor:
        time = process.at_noise_level(level)
        return model.denoise(x * float(process.scales(time)[0]), time)

    return denoise


def levels(model: ss.ScoreModel, grid: str, steps: int, first: float | None = None) -> list[float]:
    r"""Returns the noise levels of a grid, from that of t_max or the given one."""

    process = model.process
    start = process.t_max if first is None else process.at_noise_level(first)
    times = grid_times(process, grid, start, T_MIN, steps, scale_of(model))
    return torch.exp(-process.log_snr(times)).tolist()


def solve(
    model: ss.ScoreModel, z: Tensor, solver: str | solvers.Solver, calls: int, **options: object
) -> Tensor:
    r"""Returns what a solver makes of noise within a budget, on a grid by name or on levels."""

    solver = solvers.get(solver)
    if not {"levels", "times"} & options.keys():
        steps = steps_within(solver, calls)
        if not steps:
            raise ValueError(f"{solver} takes no step within {calls} calls.")
        options = {"steps": steps, "t_min": T_MIN, **options_of(model, solver), **options}
    return ss.decode(model, z, **{"solver": solver, **options}).x
