r"""The training loop: a generator that takes one step per iteration."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import replacing


class Progress(NamedTuple):
    r"""The report of a training step.

    Arguments:
        step: The number of steps taken.
        loss: The loss of the step.
        average: The moving average of the network.
    """

    step: int
    loss: float
    average: nn.Module


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
    r"""Trains a network with Adam, a warm-up, and a cosine decay to 0.

    Arguments:
        network: The network, trained in place.
        loss: The loss of a step, as a function of its number. Its random numbers must depend on that number, so
            that a resumed run continues as if it had never stopped.
        steps: The number of steps.
        lr: The maximum learning rate.
        average: The decay of the moving average of the weights.
        checkpoint: A file that stores the state, from which training resumes.
        every: The number of steps between checkpoints.
    """

    mean = copy.deepcopy(network).eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.9, 0.99))
    first = _load(checkpoint, network, mean, optimizer) if checkpoint else 0
    for step in range(first, steps):
        optimizer.param_groups[0]["lr"] = (
            lr * min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        )
        network.train()
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(average, (step + 1) / (step + 10))
        with torch.no_grad():
            for p, q in zip(mean.parameters(), network.parameters(), strict=True):
                p.lerp_(q, 1 - decay)
        if checkpoint and ((step + 1) % every == 0 or step + 1 == steps):
            _save(checkpoint, step + 1, network, mean, optimizer)
        yield Progress(step + 1, value.item(), mean)


def _save(
    file: Path, step: int, network: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"mean.{name}": value for name, value in mean.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
    with replacing(file) as part:
        save_file(tensors, part, {"step": json.dumps(step)})


def _load(
    file: Path, network: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    if not file.exists():
        return 0
    with safe_open(file, "pt") as stored:
        step = int(json.loads(stored.metadata()["step"]))
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    for prefix, module in (("network.", network), ("mean.", mean)):
        module.load_state_dict(
            {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)}
        )
    state = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".", 2)
            state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
    return step
