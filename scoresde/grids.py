r"""Grids of times: where the steps of a solver with a fixed number of them are.

With the noise level :math:`s = \sigma / \alpha = e^{-\lambda}`, a grid is uniform in a function
of it. The first and last time are exact.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | equation (5), for "rho"
    | https://arxiv.org/abs/2206.00364
    | Align Your Steps (Sabour et al., 2024), appendix A, for "tan"
    | https://arxiv.org/abs/2404.14507
"""

import difflib
from collections.abc import Callable

import torch
from torch import Tensor

from solvers import Solver

from .process import Process

RHO = 7.0
Map = Callable[[Tensor, float], Tensor]

# Each grid: a function of the noise level s and the data's standard deviation c, and its inverse.
GRIDS: dict[str, tuple[Map, Map]] = {
    "log_snr": (lambda s, c: s.log(), lambda u, c: u.exp()),
    "rho": (lambda s, c: s ** (1 / RHO), lambda u, c: u**RHO),
    "tan": (lambda s, c: torch.atan(s / c), lambda u, c: c * torch.tan(u)),
    "asinh": (lambda s, c: torch.asinh(s / c), lambda u, c: c * torch.sinh(u)),
}
NAMES = ("t", *GRIDS)
ENDINGS = {
    "karras": "rho",
    "exponential": "log_snr",
}  # of solvers' names, as interfaces write them


def grid_times(
    process: Process, name: str, start: float, stop: float, steps: int, data_std: float = 0.5
) -> Tensor:
    r"""Returns the times of a grid, with shape (steps + 1,), in float64.

    Arguments:
        process: The process.
        name: "t", "log_snr", "rho" (with :math:`\rho = 7`), "tan" or "asinh".
        start: The first time.
        stop: The last time, before or after it.
        steps: The number of intervals.
        data_std: The root mean square of the data, for "tan" and "asinh".

    Raises:
        ValueError: If there is no grid of this name.
    """

    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"grid {name!r} is unknown; {hint}the grids are {', '.join(NAMES)}.")
    ends = torch.tensor([start, stop], dtype=torch.float64)
    if name == "t":
        return _spaced(ends, steps)
    forward, inverse = GRIDS[name]
    levels = torch.exp(-process.log_snr(ends))
    times = process.time(-inverse(_spaced(forward(levels, data_std), steps), data_std).log())
    times[0], times[-1] = ends
    return times


def _spaced(ends: Tensor, steps: int) -> Tensor:
    return torch.lerp(ends[0], ends[1], torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def with_grid(solver: str | Solver, grid: str | None) -> tuple[str | Solver, str | None]:
    r"""Returns a solver and its grid, which its name may end with, as in "DPM++ 2M Karras".

    Raises:
        ValueError: If another grid is given.
    """

    if not isinstance(solver, str):
        return solver, grid
    first, _, last = solver.replace("_", " ").rpartition(" ")
    named = ENDINGS.get(last.lower()) if first else None
    if named is None:
        return solver, grid
    if grid not in (None, named):
        raise ValueError(
            f"solver {solver!r} says grid={named!r}, so grid={grid!r} has no effect; pass one."
        )
    return first, named
