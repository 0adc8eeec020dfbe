r"""Consistency distillation: estimates at neighbouring states of the flow are taught to agree."""

from pathlib import Path

import torch
from torch import Tensor

from solvers import Solver
from solvers.shapes import align, row_where

from ..models.checks import check_count, check_data, check_number
from ..models.conditions import Condition, check_conditions, verb
from ..models.estimate import estimate
from ..models.network import NetworkScore
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.grids import model_grid
from ..runs.plan import Plan
from .batches import Batches, stepped
from .student import Distilled, Lesson, huber, like, student_of, taught

BATCH, STEPS, RATE, AVERAGE, LEVELS = 128, 4000, 1e-3, 0.998, 18


@verb(data=("data",))
def consistency(
    model: ScoreModel,
    data: Data,
    *,
    student: NetworkScore | None = None,
    calls: int = 2,
    levels: int = LEVELS,
    solver: str | Solver = "exponential",
    tolerance: float = 1e-2,
    steps: int = STEPS,
    batch_size: int = BATCH,
    lr: float = RATE,
    average: float = AVERAGE,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    **condition: Condition,
) -> Distilled:
    r"""Trains a consistency model, whose estimate is the same at all states of a path of the teacher's flow.

    Noisy data at one noise level is carried along the flow to the next lower one, and the loss is the
    pseudo-Huber loss of

    .. math:: f(x_t, t) - f^-(x_s, s) ,

    where :math:`f^-` has the present weights without gradients, and :math:`f^-(x, t_{min}) = x`. It costs a few
    calls of the teacher per state, where paths for :func:`scoresde.distilling.flow_map` cost a whole run, but
    targets are the student's own, so errors add up from the data to noise.

    Arguments:
        model: The teacher, whose flow is followed, and from whose network the student starts.
        data: Data, with shape (N, *).
        student: Another model of the same process, whose network learns instead of a copy of the teacher's.
        calls: The number of network calls for which the plan of the result is.
        levels: The number of noise levels, on the grid "rho".
        solver: The solver that carries states from one level to the next: an adaptive one, or one of one step.
        tolerance: The tolerance of an adaptive solver.
        steps: The number of training steps.
        batch_size: The number of states per step.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        seed: The seed of data, levels and noise.
        checkpoint: A file that stores the state of training, from which it resumes.
        progress: Whether to show a progress bar.
        condition: The conditions of the data, each with leading size N or 1.

    References:
        | Consistency Models (Song et al., 2023), algorithm 2
        | https://arxiv.org/abs/2303.01469
        | Improved Techniques for Training Consistency Models (Song and Dhariwal, 2023), section 3.2, for a target
        | without moving average
        | https://arxiv.org/abs/2310.14189

    Examples:
        >>> from scoresde import distilling
        >>> digits, data = ss.load("digits"), torch.zeros(4, 1, 8, 8)
        >>> d = distilling.consistency(digits, data, steps=1, batch_size=2, progress=False)
        >>> d.model.learned
        'consistency'
    """

    data = check_data(model, data, "data")
    levels, calls = check_count("levels", levels, 2), check_count("calls", calls, 1)
    tolerance = check_number("tolerance", tolerance, 0, 1)
    learner = student_of(model, student, "consistency")
    lesson = Lesson("consistency", steps, batch_size, lr, average, checkpoint, progress)
    stop = start_of(model, "sampling")
    times = model_grid(model, "rho", model.process.t_max, stop, levels - 1)
    known = check_conditions(model, condition, len(data))
    batches = Batches(model, data, known, lesson.batch_size, check_count("seed", seed, None))

    def loss(step: int) -> Tensor:
        place = batches.choice(step, levels - 1)
        start, end = times[place], times[place + 1]
        x, given = batches.noisy(step, start)
        y = stepped(model, x, start, end, solver, tolerance, given)
        return huber(learner, x, start, _target(learner, y, end, stop, given), given).mean()

    network, losses = taught(learner, loss, lesson)
    plan = Plan({"solver": "consistency", "steps": calls})
    return Distilled(like(model, learner, network, "consistency"), plan, losses)


@torch.no_grad()
def _target(
    model: ScoreModel, y: Tensor, t: Tensor, stop: float, condition: dict[str, Tensor]
) -> Tensor:
    r"""The student's estimate at the nearer end of a step, which is the state itself at the data."""

    alpha = align(model.process.scales(t)[0].to(y), y)
    return row_where(t <= stop, y / alpha, estimate(model, y, t, **condition))
