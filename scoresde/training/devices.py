r"""Where a training runs: on one device, or on those that accelerate has launched it on."""

from typing import Any

import torch
from torch import Tensor, nn


class Place:
    r"""One device.

    Attributes:
        device: The device.
        rank: The number of this process.
        world: The number of processes that share a batch.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.rank, self.world = device, 0, 1

    def shared(self, module: nn.Module) -> nn.Module:
        r"""Returns the module with gradients that are means over all processes."""

        return module

    def backward(self, loss: Tensor) -> None:
        r"""Computes gradients."""

        loss.backward()

    def mean_of(self, value: float) -> float:
        r"""Returns the mean of a number over all processes."""

        return value

    def wait(self) -> None:
        r"""Waits for the other processes."""


class Launched(Place):
    r"""The devices of `accelerate launch`, each of which takes its part of every batch."""

    def __init__(self, batch_size: int) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ImportError(
                "training on several devices needs accelerate: pip install 'scoresde[accelerate]'."
            ) from None
        self.accelerator: Any = Accelerator()
        super().__init__(self.accelerator.device)
        self.rank = self.accelerator.process_index
        self.world = self.accelerator.num_processes
        if batch_size % self.world:
            raise ValueError(
                f"batch_size must be a multiple of the {self.world} processes, but is {batch_size}."
            )

    def shared(self, module: nn.Module) -> nn.Module:
        return self.accelerator.prepare_model(module)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def mean_of(self, value: float) -> float:
        mine = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self.accelerator.reduce(mine, "mean"))

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()
