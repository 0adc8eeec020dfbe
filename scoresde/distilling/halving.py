r"""Progressive distillation: each student takes two steps of its teacher in one."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

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

BATCH, STEPS, RATE, AVERAGE, ROUNDS = 128, 2000, 1e-3, 0.998, 3


@verb(data=("data",))
def progressive(
    model: ScoreModel,
    data: Data,
    *,
    student: NetworkScore | None = None,
    calls: int = 2,
    rounds: int = ROUNDS,
    grid: str = "tan",
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
    r"""Trains a model for a few steps of DDIM, whose number is halved in each round.

    With the noise levels s of a grid, of which the last is 0, and :math:`X = x / \alpha`, a step of DDIM is
    :math:`X' = D + (s' / s) (X - D)`. The student of the first round learns to take the steps of the exact flow,
    and each further one to take two steps of the student before it: if they lead to X'', its target is

    .. math:: D = \frac{X'' - (s'' / s) \, X}{1 - s'' / s} .

    It is no conditional mean, and holds on its grid alone, which the plan of the result has.

    Arguments:
        model: The teacher, whose flow is followed, and from whose network the student starts.
        data: Data, with shape (N, *).
        student: Another model of the same process, whose network learns instead of a copy of the teacher's.
        calls: The number of network calls of the last student.
        rounds: The number of rounds; the first student takes :math:`2^{rounds - 1}` times as many steps.
        grid: The grid of its steps.
        tolerance: The tolerance of the exact flow.
        steps: The number of training steps of each round.
        batch_size: The number of states per step.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        seed: The seed of data, steps and noise.
        checkpoint: A file that stores the state of training, from which it resumes, with the round before its
            suffix.
        progress: Whether to show a progress bar.
        condition: The conditions of the data, each with leading size N or 1.

    References:
        | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans and Ho, 2022), algorithm 2
        | https://arxiv.org/abs/2202.00512

    Examples:
        >>> from scoresde import distilling
        >>> digits, data = ss.load("digits"), torch.zeros(4, 1, 8, 8)
        >>> options = {"rounds": 1, "steps": 1, "batch_size": 2, "progress": False}
        >>> d = distilling.progressive(digits, data, **options)
        >>> ss.sample(d.model, 2, plan=d.plan)
        Solution((2, 1, 8, 8) by ddim, 1 intervals, 2 calls per sample)
    """

    data = check_data(model, data, "data")
    calls, rounds = check_count("calls", calls, 1), check_count("rounds", rounds, 1, 12)
    tolerance, seed = check_number("tolerance", tolerance, 0, 1), check_count("seed", seed, None)
    before: ScoreModel = model
    now = student_of(model, student, "flow")
    lesson = Lesson("", steps, batch_size, lr, average, checkpoint, progress)
    known, found = check_conditions(model, condition, len(data)), []
    for k in reversed(range(rounds)):
        walk = Walk(before, _grid(model, grid, 2 * calls * 2**k), before is model, tolerance)
        batches = Batches(model, data, known, lesson.batch_size, seed + rounds - k)
        network, losses = taught(now, _loss(now, walk, batches), lesson.numbered(calls * 2**k))
        found.append(losses)
        before = found_model = like(model, now, network, "flow")
        now = student_of(before, None, "flow")
    if calls == 1:  # whose estimate is the end of the flow
        found_model.learned = "consistency"
    return Distilled(found_model, _plan(walk.levels[:-1:2].tolist()), torch.cat(found))


def _grid(model: ScoreModel, name: str, count: int) -> Tensor:
    r"""The times of `count` calls; the last of them leads to the data."""

    stop = start_of(model, "sampling")
    return model_grid(model, name, model.process.t_max, stop, count)[:-1]


def _plan(levels: list[float]) -> Plan:
    r"""The plan of a student; its single call, if there is only one, is the estimate of either solver."""

    if len(levels) == 1:
        return Plan({"solver": "consistency", "steps": 1})
    return Plan({"solver": "ddim"}, noise_levels=tuple(levels))


class Walk:
    r"""Creates pairs of a teacher's steps, and what a student must estimate to take both in one.

    Arguments:
        model: The teacher.
        halves: The times of the teacher's steps, from noise to data, which lies beyond the last.
        exact: Whether it follows the exact flow, and not the grid.
        tolerance: The tolerance of the exact flow.
    """

    def __init__(self, model: ScoreModel, halves: Tensor, exact: bool, tolerance: float) -> None:
        self.model, self.exact, self.tolerance = model, exact, tolerance
        stop = start_of(model, "sampling")
        self.times = torch.cat([halves, halves.new_tensor([stop])])
        self.levels = torch.exp(-model.process.log_snr(self.times))
        self.levels[-1] = 0.0

    def target(self, x: Tensor, place: Tensor, condition: dict[str, Tensor]) -> Tensor:
        r"""Returns the estimate that leads a student where the teacher goes in two steps, with shape (B, *).

        Arguments:
            x: States at the even times.
            place: The numbers of these times, with shape (B,).
            condition: The conditions.
        """

        alpha = align(self.model.process.scales(self.times[2 * place])[0].to(x), x)
        X = x / alpha
        end = self._exact(x, place, condition) if self.exact else X
        for k in range(0 if self.exact else 2):
            end = self._ddim(end, 2 * place + k, condition)
        ratio = align((self.levels[2 * place + 2] / self.levels[2 * place]).to(x), x)
        return (end - ratio * X) / (1 - ratio)

    @torch.no_grad()
    def _ddim(self, X: Tensor, place: Tensor, condition: dict[str, Tensor]) -> Tensor:
        t = self.times[place]
        alpha = align(self.model.process.scales(t)[0].to(X), X)
        ratio = align((self.levels[place + 1] / self.levels[place]).to(X), X)
        D = estimate(self.model, alpha * X, t, **condition)
        return D + ratio * (X - D)

    def _exact(self, x: Tensor, place: Tensor, condition: dict[str, Tensor]) -> Tensor:
        r"""The states of the exact flow, divided by alpha, and denoised at its end."""

        ends = self.times[2 * place], self.times[2 * place + 2]
        y = stepped(self.model, x, *ends, "exponential", self.tolerance, condition)
        with torch.no_grad():
            clean = estimate(self.model, y, ends[1], **condition)
        alpha = align(self.model.process.scales(ends[1])[0].to(x), x)
        return row_where(self.levels[2 * place + 2] == 0, clean, y / alpha)


def _loss(student: NetworkScore, walk: Walk, batches: Batches) -> Callable[[int], Tensor]:
    r"""The loss of a round, as a function of the step."""

    def loss(step: int) -> Tensor:
        place = batches.choice(step, len(walk.times) // 2)
        t = walk.times[2 * place]
        x, condition = batches.noisy(step, t)
        return huber(student, x, t, walk.target(x, place, condition), condition).mean()

    return loss
