r"""The training loop: a generator that takes one step per iteration."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from .checkpoint import check_same, facts_of, load_state, save_state
from .failure import TrainingError
from .schedule import factor

BETAS = (0.9, 0.99)  # of Adam
FUSED = ("cpu", "cuda")  # devices on which Adam takes all weights at once


class Progress(NamedTuple):
    r"""The report of a training step.

    Arguments:
        step: The number of steps taken.
        loss: The loss of the step; NaN if none was taken, since the checkpoint is of the end.
        average: The moving average of the network.
    """

    step: int
    loss: float
    average: nn.Module


class Optimisation:
    r"""Adam with a schedule, clipped gradients, and averages of the weights.

    Arguments:
        parameters: What is trained.
        network: The network whose weights are averaged.
        averages: The averages.
        lr: The maximum learning rate.
        schedule: Its factor by step.
        clip: The largest norm of the gradient, or `None` for any.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        network: nn.Module,
        averages: Sequence[AveragedModel],
        lr: float,
        schedule: Callable[[int], float],
        clip: float | None = 1.0,
    ) -> None:
        self.parameters, self.network, self.averages = parameters, network, averages
        self.clip, self.schedule = clip, schedule
        fused = all(p.is_floating_point() and p.device.type in FUSED for p in parameters)
        self.optimizer = torch.optim.Adam(parameters, lr=lr, betas=BETAS, fused=fused)
        self.scheduler = LambdaLR(self.optimizer, schedule)

    def begin_at(self, step: int) -> None:
        r"""Sets the schedule to the number of steps that were taken before."""

        self.scheduler = LambdaLR(self.optimizer, self.schedule, last_epoch=step - 1)

    @property
    def rate(self) -> float:
        r"""The learning rate of the next step."""

        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, backward: Callable[[], None]) -> Tensor:
        r"""Takes a step along the gradient that `backward` computes, and returns its norm."""

        self.optimizer.zero_grad()
        backward()
        most = float("inf") if self.clip is None else self.clip
        norm = nn.utils.clip_grad_norm_(self.parameters, most)
        self.optimizer.step()
        self.scheduler.step()
        for average in self.averages:
            average.update_parameters(self.network)
        return norm


@torch.enable_grad()  # type: ignore[untyped-decorator]
def train(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float = 2e-3,
    average: float = 0.998,
    checkpoint: Path | None = None,
    every: int = 200,
) -> Iterator[Progress]:
    r"""Trains a network with Adam, a warm-up, and a cosine decay to 0, and yields a report after each step.

    If the checkpoint is of the last step, it yields that alone.

    Arguments:
        network: The network, trained in place.
        loss: The loss of a step, as a function of its number. Its random numbers must depend on that number, so
            that a resumed run continues as if it had never stopped.
        steps: The number of steps.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        checkpoint: A file that stores the state, from which training resumes.
        every: The number of steps between checkpoints.

    Raises:
        ValueError: If the checkpoint is of a training with other options.
        TrainingError: If a loss is not finite.
    """

    mean = _exponential(network, average)
    run = Optimisation(
        list(network.parameters()), network, [mean], lr, factor("cosine", steps, 100)
    )
    modules, first = {"network": network, "mean": mean.module}, 0
    options = {"steps": steps, "lr": lr, "average": average}
    if checkpoint is not None and checkpoint.exists():
        check_same(checkpoint, facts_of(checkpoint).get("options", {}), options)
        _, facts = load_state(checkpoint, modules, run.optimizer)
        first = int(facts["step"])
        mean.n_averaged.fill_(first)
        run.begin_at(first)
    if first == steps:
        yield Progress(steps, math.nan, mean.module)
    for step in range(first, steps):
        network.train()
        value = loss(step)
        _check_finite(value.item(), step, lr)
        run.step(value.backward)
        if checkpoint and ((step + 1) % every == 0 or step + 1 == steps):
            save_state(checkpoint, modules, run.optimizer, {"step": step + 1, "options": options})
        yield Progress(step + 1, value.item(), mean.module)


def _check_finite(loss: float, step: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step + 1}, with the learning rate near {lr:g}; a smaller lr= helps most "
            "often."
        )


def _exponential(network: nn.Module, decay: float) -> AveragedModel:
    r"""A moving average whose decay rises to the given one."""

    def update(mean: Sequence[Tensor], now: Sequence[Tensor], seen: Tensor | int) -> None:
        kept = min(decay, (int(seen) + 1) / (int(seen) + 10))
        torch._foreach_lerp_(list(mean), list(now), 1 - kept)

    return AveragedModel(network, multi_avg_fn=torch.no_grad()(update)).eval()
