r"""The end of the flow, learned from whole paths of the teacher."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from solvers.noise.brownian import LEVELS, keyed_uniform

from ..models.checks import check_count, check_number
from ..models.conditions import verb
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..runs.plan import Plan
from .paths import Trajectories
from .student import Distilled, Lesson, facts_of, huber, like, student_of, taught

BATCH, STEPS, RATE, AVERAGE, FIRST = 128, 4000, 1e-3, 0.998, 0.4


@verb
def flow_map(
    model: ScoreModel,
    paths: Trajectories | Sequence[Trajectories],
    *,
    student: NetworkScore | None = None,
    calls: int = 2,
    steps: int = STEPS,
    batch_size: int = BATCH,
    lr: float = RATE,
    average: float = AVERAGE,
    first: float = FIRST,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Distilled:
    r"""Trains a consistency model on paths: from every state of a path, it predicts where the path ends.

    The loss is the pseudo-Huber loss of :math:`f(x_t, t) - x_0`, weighted by :math:`1 / s^2 + 1 / c^2` at the
    noise level s, for data with root mean square c. Its targets are exact, where those of
    :func:`scoresde.distilling.consistency` are the student's own, but each path costs a whole run of the teacher.

    Arguments:
        model: The teacher, which made the paths, from whose network the student starts.
        paths: The paths, from :func:`scoresde.distilling.trajectories`; of several, each step takes the next.
        student: Another model of the same process, whose network learns instead of a copy of the teacher's.
        calls: The number of network calls for which the plan of the result is.
        steps: The number of training steps.
        batch_size: The number of states per step.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        first: The share of states that are pure noise, from which sampling starts.
        seed: The seed of the choice of states.
        checkpoint: A file that stores the state of training, from which it resumes.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If `paths` is empty, or of another model.

    References:
        | Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed
        | (Luhman and Luhman, 2021), section 3, from noise
        | https://arxiv.org/abs/2101.02388
        | Consistency Models (Song et al., 2023), section 3, from all noise levels
        | https://arxiv.org/abs/2303.01469

    Examples:
        >>> from scoresde import distilling
        >>> digits = ss.load("digits")
        >>> paths = distilling.trajectories(digits, 4, nodes=3, solver="ddim", progress=False)
        >>> d = distilling.flow_map(digits, paths, steps=1, batch_size=2, progress=False)
        >>> ss.sample(d.model, 2, plan=d.plan)
        Solution((2, 1, 8, 8) by consistency, 1 intervals, 2 calls per sample)
    """

    several = [paths] if isinstance(paths, Trajectories) else list(paths)
    calls, first = check_count("calls", calls, 1), check_number("first", first, 0, 1)
    if not several:
        raise ValueError("paths must hold at least one set of paths, but is empty.")
    for one in several:
        one.fit(model)
    learner = student_of(model, student, "consistency")
    ends = {str(i): one.ends for i, one in enumerate(several)}
    facts = facts_of(model, ends, first=first, seed=seed)
    lesson = Lesson("flow map", steps, batch_size, lr, average, checkpoint, progress, facts)
    seed, size = check_count("seed", seed, None), lesson.batch_size

    def loss(step: int) -> Tensor:
        chosen, rows = several[step % len(several)], torch.arange(size) + step * size
        share = keyed_uniform(seed, rows, LEVELS, 0, 3)
        place = 1 + (share[:, 0] * (len(chosen.times) - 1)).long()
        place = place * (share[:, 1] >= first)
        x, t, end, given = chosen.at(place, (share[:, 2] * len(chosen)).long())
        return huber(learner, x, t, end, given).mean()

    network, losses = taught(learner, loss, lesson)
    plan = Plan({"solver": "consistency", "steps": calls})
    return Distilled(like(model, learner, network, "consistency"), plan, losses)
