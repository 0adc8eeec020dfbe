r"""Editing without inversion: the difference of two flows, averaged over noise.

At the noise level s, both models denoise states that differ by the edit so far, :math:`\delta`, and share
their noise,

.. math:: x + s z \quad \text{and} \quad x + s z + \delta , \qquad
    \frac{d \delta}{d \log s} = \delta - \mathbb{E}_z \big[ D_{target} - D_{source} \big] ,

in units of the data. This is the equation of FlowEdit for any process; its step from s to s' is
:math:`\delta' = \tfrac{s'}{s} \delta + (1 - \tfrac{s'}{s}) \, \Delta D`.

References:
    | FlowEdit: Inversion-Free Text-Based Editing (Kulikov et al., 2024), equation (9) and algorithm 1
    | https://arxiv.org/abs/2412.08629
"""

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from solvers import Failure, Solution, SolverError, counting
from solvers.noise.brownian import EDITS, keyed_normal

from ..doors.data import as_state
from ..models.checks import check_count, check_data
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..runs.noise import keyed_by_rows
from ..runs.options import Ending, Keys, Start, UntimedOptions
from ..runs.run import Run
from ..runs.takes import ANYTHING, Takes, split

STEPS = 50
DIFFERENCE = "flow difference"
FLOW = Takes("method='flow', which has steps of its own", "steps", "grid", "times", Start, Keys, "dtype",
             "device", "path", Ending)  # fmt: skip


def by_difference(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    t_max: float,
    *,
    averages: int = 1,
    **options: Unpack[UntimedOptions],
) -> Solution:
    r"""Edits data by the difference of two flows, without encoding it.

    Arguments:
        source: The model of the given data, with its conditions bound.
        target: The model of the edited data, with its conditions bound.
        x: Data, with shape (B, *).
        t_max: The time at which the edit starts.
        averages: The number of noise draws over which each step is averaged.
        options: Steps and grid (by default, 50 steps on the default grid of sampling), seeds, and `path`, which
            keeps the data during the edit, with shape (n + 1, B, *).
    """

    x = as_state("x", x)
    averages = check_count("averages", averages, at_least=1)
    FLOW.refuse(options)
    stepping = {"steps": STEPS} if "times" not in options else {}
    target, settings = split(target, {"solver": "ddim", **stepping, **options}, len(x), ANYTHING)
    x, process = check_data(target, x, "x", settings.dtype, settings.device), target.process
    start = start_of(target, "sampling") if settings.t_min is None else settings.t_min
    run = Run.between(target, settings, t_max, start)
    times = run.times
    levels, alphas = torch.exp(-process.log_snr(times)), process.scales(times)[0]
    keys = keyed_by_rows(settings, x).keys(torch.arange(len(x)))
    edit, path = torch.zeros_like(x), [x]
    with counting() as counter, settings.gradients():
        for i, (level, alpha) in enumerate(zip(levels.tolist(), alphas.tolist(), strict=True)):
            last = i + 1 == len(times)
            if last and not settings.denoise:
                break
            gap = torch.zeros_like(x)
            for k in range(averages):
                z = keyed_normal(*keys, EDITS, i * averages + k, x[0].numel()).to(x)
                noisy = x + level * z.reshape(x.shape)
                gap += _gap(source, target, alpha * noisy, alpha * edit, times[i]) / averages
            ratio = 0.0 if last else levels[i + 1].item() / level
            edit = ratio * edit + (1 - ratio) * gap
            path.append(x + edit)
    kept = torch.stack(path[: len(times)]) if settings.path else None
    made = {**run.provenance, "solver": DIFFERENCE}
    solution = _solution(x + edit, times, counter.total, kept, made)
    _check_finite(solution, path, target)
    return solution


def _check_finite(solution: Solution, path: list[Tensor], target: ScoreModel) -> None:
    r"""Refuses an edit that is no longer finite, and reports since when.

    Raises:
        SolverError: If the edit is not finite, with the last finite states.
    """

    fine = solution.x.detach().flatten(1).isfinite().all(1).cpu()
    if bool(fine.all()):
        return
    last = max(i for i, state in enumerate(path) if bool(state.isfinite().all()))
    rows = (~path[last + 1].detach().flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
    time = target.process.describe(float(solution.times[last].flatten()[0]))
    status = tuple("nonfinite" if i in rows else "stopped" for i in range(len(fine)))
    failed = replace(
        solution, x=path[last], reached=0 * solution.reached + solution.times[last], status=status
    )
    raise SolverError(Failure("nonfinite", tuple(rows), time), failed)


def _gap(source: ScoreModel, target: ScoreModel, noisy: Tensor, edit: Tensor, t: Tensor) -> Tensor:
    return target.denoise(noisy + edit, t) - source.denoise(noisy, t)


def _solution(
    x: Tensor, times: Tensor, calls: int, path: Tensor | None, made: dict[str, object]
) -> Solution:
    none = torch.zeros(len(x), dtype=torch.int64)
    return Solution(
        x=x,
        times=times,
        reached=times[-1].expand(len(x)),
        calls=none + calls,
        accepted=none + len(times) - 1,
        rejected=none,
        status=("ok",) * len(x),
        path=path,
        provenance=made,
    )
