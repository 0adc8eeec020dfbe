r"""The densities of the steps of a stochastic run, for gradients of policies.

Given the states before it, the end of a step of many stochastic solvers is normal, and a run is a policy whose
actions are its steps. In the coordinates of the solver, :math:`X = x / \alpha` for semi-linear solvers, a step to
the time :math:`t_{i+1}` has the density

.. math:: \log p(x_{i+1} \mid x_i, x_{i-1}, \dots) = - \frac{|z_i|^2}{2} - d \log s_i - d \log \alpha_{i+1}
    - \frac{d}{2} \log 2 \pi , \qquad z_i = \frac{X_{i+1} - m_i}{s_i} .

References:
    | Training Diffusion Models with Reinforcement Learning (Black et al., 2023), section 4.3
    | https://arxiv.org/abs/2305.13301
    | DPOK: Reinforcement Learning for Fine-tuning Text-to-Image Diffusion Models (Fan et al., 2023), section 4.1
    | https://arxiv.org/abs/2305.16381
"""

import math
import re
from dataclasses import replace

import torch
from torch import Tensor

from solvers import Solution

from ..models.checks import check_data
from ..models.conditions import Condition, verb
from ..models.derivative import check_derivative
from ..models.masked import masked_of
from ..models.rows_check import check_rows
from ..models.score_model import ScoreModel
from ..reverse.amounts import ByRow, Eta, as_amount, told_amount
from ..runs.gaussian_steps import gaussian_steps
from ..runs.options import Gradients, Numbers, RunOptions
from ..runs.plan import describe_process
from ..runs.run import Run
from ..runs.settings import Settings
from ..runs.takes import Takes, split

TRANSITIONS = Takes("the solution", Numbers, "batch_size", words="is set by")


@verb(latents=("solution",))
def transition_log_prob(  # noqa: D417
    model: ScoreModel,
    solution: Solution,
    *,
    eta: Eta | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    **condition: Condition,
) -> Tensor:
    r"""Returns the log-density of each step of a stochastic run, given the states before it.

    It is :math:`\log \mathcal{N}(x_{i+1}; \, m_i, \, s_i^2 I)`, where :math:`m_i` is the solver's step from the
    states of the path without noise, and :math:`s_i` the deviation of its noise. With `prior_log_prob` of the
    process at the first state, the sum over steps is the log-density of the whole path. With `grad="backprop"`,
    it is differentiable in the model's weights and conditions; the states are constants.

    Arguments:
        model: The score model, which may have other weights than the one that made the path.
        solution: The solution of :func:`scoresde.sample` or :func:`scoresde.decode` with `path=True` and a solver
            whose steps are normal (`solver.can.gaussian`), such as "ancestral", "dpmpp_2m_sde" or "em".
        eta: The amount of noise of the run, if it was a function of the noise level: a solution keeps its name
            alone.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that the
            solution does not set. The default dtype is that of the path.

    Returns:
        The log-densities in nats, of x in the units of the process, with shape (n, B), in float64. The last
        denoising is no step, and has none. For a masked model, they are those of the entries that exist.

    Raises:
        ValueError, TypeError: If an option or condition is invalid, or the steps of the solver are not normal.

    References:
        | Training Diffusion Models with Reinforcement Learning (Black et al., 2023), section 4.3
        | https://arxiv.org/abs/2305.13301

    Examples:
        >>> s = ss.sample(model, 3, solver="ancestral", steps=4, path=True)
        >>> steps = ss.transition_log_prob(model, s)
        >>> steps.shape
        torch.Size([4, 3])
        >>> joint = model.process.prior_log_prob(s.path[0]) + steps.sum(0)  # the density of the path
    """

    options = TRANSITIONS.said(locals())
    path = _check_path(solution)
    given = _same_steps(solution, eta)
    model, settings = split(model, options, len(solution), TRANSITIONS, **given)
    _check_origin(model, solution)
    states = path.detach().flatten(0, 1)
    states = check_data(model, states, "solution", settings.dtype, settings.device)
    states = states.reshape(path.shape)
    size, total = settings.batch_size or len(solution), len(solution)
    if size < total:
        check_rows(model, states[-1])
    if settings.grad != "none":
        check_derivative(model, states[-1], "reverse", f"grad={settings.grad!r}", size)
    found = []
    with settings.gradients():
        for rows in torch.arange(total).split(size):
            times = solution.times if solution.times.ndim == 1 else solution.times[:, rows]
            part = model.rows(rows) if len(rows) < total else model
            run = Run(part, _for_rows(settings, rows), times)
            found.append(_log_prob(run, states[:, rows.to(states.device)]))
    return torch.cat(found, 1)


def _log_prob(run: Run, path: Tensor) -> Tensor:
    r"""The log-densities of the steps of some samples, with shape (n, B)."""

    reverse, times = run.reverse, run.times
    steps = gaussian_steps(run, [reverse.enter(x, t) for x, t in zip(path, times, strict=True)])
    counts = _counts(run, path)
    d, found = counts.sum(1), []
    for z, std, scale in zip(steps.normals, steps.stds, reverse.scale(times[1:]), strict=True):
        volume = (std.double().log().flatten(1) * counts).sum(1) + d * scale.log().to(path.device)
        square = z.double().square().flatten(1).sum(1)
        found.append(-square / 2 - volume - d / 2 * math.log(2 * math.pi))
    return torch.stack(found)


def _counts(run: Run, path: Tensor) -> Tensor:
    r"""How many entries of x each coordinate stands for, with shape (1, D), or (B, D) if some do not exist."""

    part, known = masked_of(run.model), run.reverse.moments
    if part is not None:
        return part.mask.flatten(1).to(path.device, torch.float64)
    if known is not None:
        return known.counts[None].to(path.device, torch.float64)
    return torch.ones(1, path[0, 0].numel(), dtype=torch.float64, device=path.device)


def _check_path(solution: Solution) -> Tensor:
    r"""The path of a solution, after checking that its steps have a density."""

    solver, made = solution.solver, solution.provenance
    if solver is None or "process" not in made:
        raise ValueError("solution must be made by ss.sample or ss.decode, which keep its solver.")
    if not made["eta"] and not solver.can.own_noise:
        raise ValueError(
            f"solution must be of a run with noise, but {solver} with eta=0 adds none; for the density of its "
            "samples, pass log_density=True to ss.sample."
        )
    if not solver.can.gaussian:
        raise ValueError(
            f"solution must be of a solver whose steps are normal given the states before them, but {solver} "
            "is not known as one (can.gaussian), as it uses the noise of a step in that step or the next; "
            "sample with one such as 'ancestral', 'dpmpp_2m_sde' or 'em'."
        )
    if solution.path is None:
        raise ValueError("solution must hold its path; pass path=True to ss.sample.")
    if not solution.ok:
        bad = [i for i, status in enumerate(solution.status) if status != "ok"]
        raise ValueError(
            f"solution must hold samples that reached the end, but samples {bad[:8]} did not "
            "(solution.status tells why); pass solution.rows(...) of the others."
        )
    return solution.path


def _for_rows(settings: Settings, rows: Tensor) -> Settings:
    r"""The options of some rows, with their amounts of noise."""

    eta = settings.eta
    return replace(settings, eta=eta.rows(rows)) if isinstance(eta, ByRow) else settings


def _same_steps(solution: Solution, eta: Eta | None) -> RunOptions:
    r"""The options with which a run takes the steps of a solution again."""

    made, solver = solution.provenance, solution.solver
    assert solver is not None
    return {
        "solver": solver,
        "times": solution.times,
        "clock": made["clock"],
        "eta": _same_amount(made["eta"], eta) if solver.can.takes_eta else None,
        "eta_convention": made["eta_convention"],
    }


def _same_amount(known: float | list[float] | str, eta: Eta | None) -> Eta:
    r"""The amount of noise of a solution, from its record or, if that is the name of a function, from the user."""

    if not isinstance(known, str):
        if eta is not None:
            raise ValueError("eta= is set by the solution; leave it out.")
        return known
    if not callable(eta) or told_amount(eta) != known:
        given = "" if eta is None else f", not {told_amount(as_amount(eta))}"
        raise ValueError(
            f"eta was the function {known} in the run of this solution, which keeps its name alone; pass that "
            f"function by eta={given}."
        )
    return eta


def _check_origin(model: ScoreModel, solution: Solution) -> None:
    r"""Refuses a model of another process, or without the conditions of the solution."""

    made = solution.provenance
    if re.sub(r" at 0x[0-9a-f]+", "", made["process"]) != describe_process(model):
        raise ValueError(
            f"solution was made under {made['process']}, but the model's process is {model.process}; pass a "
            "model of that process."
        )
    missing = [name for name in made.get("conditions", []) if name not in model.bound_names]
    if missing:
        raise ValueError(
            f"solution was made with {missing[0]}=, which is missing here; pass it, or bind it by model.given."
        )
