r"""The densities of samples along the path of the run that drew them.

A run from noise to data without noise follows the same flow as the path of :mod:`scoresde.likelihood.flow`, in the
other direction, so its states serve as that path: the sum of traces along it is the change of the log-density,
and no second path is solved.
"""

from dataclasses import replace

import torch
from torch import Tensor

from solvers import Solution
from solvers.shapes import align

from ..models.learned import check_learned
from ..models.rows_check import check_rows
from ..runs.run import Run, same_time
from .advice import EXACT_UP_TO
from .batches import Asked
from .companion import Companion
from .densities import Divergence, check_divergence, check_flow, densities
from .flow import EXACT_NODES, NODES, knots


def along(run: Run, x: Tensor) -> tuple[Run, int]:
    r"""Returns a run towards data that keeps what its log-density needs, and the calls of that per sample.

    Arguments:
        run: The run.
        x: The states at its first time, with shape (B, *).
    """

    model, process, settings = run.model, run.model.process, run.settings
    check_learned(model, "log_density=")
    if not process.has_scales:
        raise ValueError(
            f"log_density= needs noise levels with numbers alpha and sigma, but {process} has none; leave it out."
        )
    if run.eta or settings.method.can.own_noise:
        raise ValueError(
            f"log_density= is the density of the probability flow, but {settings.method} adds noise; use a "
            "solver without noise, such as 'dpmpp_2m', or leave log_density= out, and pass the samples to "
            "ss.log_likelihood, or those of path=True to ss.transition_log_prob."
        )
    ends = run.times[[0, -1]].reshape(2, -1)
    first, last = (values.unique() for values in ends)
    if len(first) > 1 or not same_time(first.item(), process.t_max):
        raise ValueError(
            f"log_density= needs a run from t_max={process.t_max:.9g}, where the density is that of the prior, "
            f"but this one starts at {first[0]:.9g}; leave it out, and use ss.log_likelihood."
        )
    if len(last) > 1:
        raise ValueError(
            f"log_density= needs one last time for all samples, but they end at {last[0]:.4g} to "
            f"{last[-1]:.4g}; decode them in groups of one last time."
        )
    check_divergence(model)
    check_rows(model, x)
    check_flow(_asked(run, x))
    if settings.adaptive:
        run = replace(run, times=knots(process, last.item()).flip(0))
    calls = _divergence(x).calls(model, x[0].numel())
    return replace(run, settings=replace(settings, path=True)), calls


def with_log_density(run: Run, solution: Solution) -> Solution:
    r"""Returns a solution with the log-densities of its samples, and without the path if nobody asked for it.

    Arguments:
        run: The run as it was asked for.
        solution: The solution of the run of :func:`along`.
    """

    assert solution.path is not None
    path, kept = solution.path, run.settings.path
    ok = torch.tensor([status == "ok" for status in solution.status])
    there = path if path.device.type == "mps" else path.double()
    there = torch.where(align(ok.to(path.device), path[0]), there, torch.zeros_like(there))
    way = replace(solution, x=there[0], path=there.flip(0), times=solution.times.flip(0))
    alpha = run.model.process.scales(way.times[0])[0]
    asked = _asked(run, there[-1] / align(alpha.to(there), there[-1]), way)
    divergence = _divergence(path[0])
    found = densities(asked, divergence)
    budget = {name: part for name, part in found.budget.items() if name != "end"}
    calls = divergence.calls(run.model, found.dimension)
    times = solution.times if kept or not run.settings.adaptive else solution.times[[0, -1]]
    return replace(
        solution,
        calls=solution.calls + calls * ok,
        path=path if kept else None,
        times=times,
        log_density=found.nats,
        log_density_error=replace(found, budget=budget).total,
    )


def _asked(run: Run, y: Tensor, path: Solution | None = None) -> Asked:
    r"""The densities of states y, in units of the data, at the end of a run."""

    process, settings, start = run.model.process, run.settings, float(run.times[-1].max())
    ends = torch.tensor([start, process.t_max], dtype=torch.float64)
    first, last = (-process.log_snr(ends)).tolist()
    return Asked(run.model, y, settings, start, (first, last), Companion.of(run.model, y), path)


def _divergence(x: Tensor) -> Divergence:
    r"""The divergence that is "auto" for :func:`scoresde.log_likelihood`."""

    if x[0].numel() <= EXACT_UP_TO:
        return Divergence("exact", 1, EXACT_NODES)
    return Divergence("hutchinson", 1, NODES)
