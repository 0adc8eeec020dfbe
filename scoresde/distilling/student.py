r"""A student: a copy of a teacher's network that learns to take its steps at once."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..doors.amounts import positive
from ..files import Json
from ..losses.noised import mean_square
from ..losses.weights import weights
from ..models.checks import check_count, check_number
from ..models.estimate import estimate
from ..models.network import NetworkScore
from ..models.score_model import Given, ScoreModel
from ..runs.plan import Plan, fingerprint
from ..runs.progress import bar
from ..training.loop import train

WIDTH = (
    0.03  # of the pseudo-Huber loss, below which it is quadratic, in units of the network's target
)


@dataclass(frozen=True)
class Distilled:
    r"""The result of a distillation.

    Arguments:
        model: The student, with the averaged weights, which :func:`scoresde.save` keeps.
        plan: How it is meant to be sampled, for `plan=` of :func:`scoresde.sample`.
        losses: The loss of each step, with shape (steps,); NaN for those before a resumed run.

    Examples:
        >>> from scoresde import distilling
        >>> digits = ss.load("digits")
        >>> paths = distilling.trajectories(digits, 4, nodes=3, solver="ddim", progress=False)
        >>> d = distilling.flow_map(digits, paths, steps=1, batch_size=2, progress=False)
        >>> d.plan, len(d.losses)
        (Plan(consistency (steps=2)), 1)
    """

    model: NetworkScore
    plan: Plan
    losses: Tensor

    def __repr__(self) -> str:
        return f"Distilled({self.model!r}, {len(self.losses)} steps, loss {self.losses[-1]:.3g})"


@dataclass(frozen=True)
class Lesson:
    r"""Creates the settings of a training run, after checking them.

    Arguments:
        title: The title of its progress bar.
        steps: The number of steps.
        batch_size: The number of states per step.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        checkpoint: A file that stores the state of training, from which it resumes.
        progress: Whether to show a progress bar.
    """

    title: str
    steps: int
    batch_size: int
    lr: float
    average: float
    checkpoint: str | Path | None
    progress: bool

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), 1))
        object.__setattr__(self, "lr", positive("lr", self.lr))
        object.__setattr__(self, "average", check_number("average", self.average, 0, 1))

    def numbered(self, calls: int) -> "Lesson":
        r"""Returns the settings of the round that teaches a number of calls, with a checkpoint of its own."""

        file = None
        if self.checkpoint is not None:
            file = Path(self.checkpoint).with_suffix(f".{calls}.safetensors")
        return replace(self, title=f"{calls} calls", checkpoint=file)


def check_teacher(teacher: ScoreModel) -> NetworkScore:
    r"""Returns the teacher's network model, after checking that a copy of it can learn.

    Raises:
        TypeError: If it has no network of its own.
    """

    inside = teacher
    while isinstance(inside, Given):
        inside = inside.model
    if not isinstance(inside, NetworkScore):
        raise TypeError(
            f"the teacher must be a NetworkScore, whose network the student starts from, but is a "
            f"{type(inside).__name__}; pass student=, a NetworkScore of the same process."
        )
    return inside


def student_of(teacher: ScoreModel, student: NetworkScore | None, learned: str) -> NetworkScore:
    r"""Returns the student: a copy of the teacher, or of the given model, without dropout.

    Arguments:
        teacher: The teacher.
        student: The model whose network learns, if it is not the teacher's.
        learned: What it learns.
    """

    source = check_teacher(teacher) if student is None else student
    if not isinstance(source.network, nn.Module):
        raise TypeError(
            "the student's network must be a module, whose weights can learn, but is a function."
        )
    if source.process != teacher.process:
        raise ValueError(
            f"the student must have the teacher's process, {teacher.process}, but has {source.process}."
        )
    network = copy.deepcopy(source.network).requires_grad_(True)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0  # its targets are exact, so there is nothing to average over
    return like(teacher, source, network, learned)


def like(
    teacher: ScoreModel, source: NetworkScore, network: nn.Module, learned: str
) -> NetworkScore:
    r"""Returns a model of a network, in the form of a given model, for the teacher's data."""

    made = NetworkScore(
        network,
        source.process,
        source.predicts,
        conditions=source.conditions,
        shape=teacher.shape,
        data_std=source.data_std,
        data_scale=None if teacher.moments is not None else teacher.data_scale,
        learned=learned,
    )
    made.moments, made.transform = teacher.moments, teacher.transform
    known: Json = getattr(source, "card", {})
    card: Json = {name: value for name, value in known.items() if name == "network"}
    vars(made)["card"] = {**card, "teacher": fingerprint(teacher)}  # which ss.save writes
    return made


def huber(
    student: NetworkScore, x: Tensor, t: Tensor, target: Tensor, condition: dict[str, Tensor]
) -> Tensor:
    r"""Returns the pseudo-Huber loss of a student's estimates, with shape (B,).

    .. math:: \sqrt{w \, \|D(x) - y\|^2 / d + c^2} - c , \qquad c = 0.03

    The weights :math:`w = \alpha^2 / \sigma^2 + 1 / \sigma_{data}^2` give the network's target unit scale at all
    noise levels.

    Arguments:
        student: The student.
        x: States, with shape (B, *).
        t: Their times, with shape (B,).
        target: The data y that it is to estimate, with shape (B, *).
        condition: The conditions.

    References:
        | Improved Techniques for Training Consistency Models (Song and Dhariwal, 2023), equation (8)
        | https://arxiv.org/abs/2310.14189
    """

    w = weights("edm", student.process, student.process.log_snr(t), student.data_std).to(x)
    error = estimate(student, x, t, **condition) - target
    return (w * mean_square(error) + WIDTH**2).sqrt() - WIDTH


def taught(
    student: NetworkScore, loss: Callable[[int], Tensor], lesson: Lesson
) -> tuple[nn.Module, Tensor]:
    r"""Trains a student's network in place, and returns its moving average and the losses."""

    losses, file = torch.full((lesson.steps,), torch.nan), lesson.checkpoint
    with bar(total=lesson.steps, desc=lesson.title, shown=lesson.progress) as shown:
        for report in train(
            cast(nn.Module, student.network),
            loss,
            steps=lesson.steps,
            lr=lesson.lr,
            average=lesson.average,
            checkpoint=None if file is None else Path(file),
        ):
            losses[report.step - 1] = report.loss
            shown.update(report.step - shown.n)
    return report.average.eval().requires_grad_(False), losses
