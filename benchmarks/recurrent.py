r"""What gradients through the last k steps of sampling keep in memory, and how near they are to those through all.

Thirty-two digits of the embedded network in 10 steps. The peak is that of all tensors alive at once, forwards and
backwards, beside the weights: it is counted, operation by operation, and does not depend on the machine.

    python -m benchmarks.recurrent
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import scoresde as ss
from scoresde.models.scale import start_of
from scoresde.runs.run import Run
from scoresde.runs.truncated import truncated

from .report import save

STEPS, COUNT = 10, 32
LAST = (1, 2, 5, 10)
WAYS = ("backprop", "checkpoint")


class Alive(TorchDispatchMode):
    r"""Counts the bytes of all tensors that operations in its block make, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, call: Callable, types: Sequence, args: Sequence = (), kwargs: Mapping | None = None
    ) -> Any:
        out = call(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def gone(_: object) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def measure(solver: str, grad: str, last: int) -> tuple[dict, Tensor]:
    model = ss.load("digits").requires_grad_(True).given(label=torch.zeros(1, dtype=torch.int64))
    settings = ss.Settings(solver=solver, steps=STEPS, grad=grad)
    run = Run.between(model, settings, model.process.t_max, start_of(model, "sampling"))
    x, weights = model.process.prior_sample((COUNT, 1, 8, 8)), list(model.parameters())
    truncated(run, x, last)  # what the first run takes
    with Alive() as alive:
        for weight in weights:
            alive.known[weight.untyped_storage()._cdata] = weakref.ref(weight)
        slopes = torch.autograd.grad(truncated(run, x, last).x.mean(), weights)
    slope = torch.cat([slope.flatten() for slope in slopes])
    return {"solver": solver, "grad": grad, "last": last, "peak MiB": alive.peak / 2**20}, slope


def main() -> None:
    rows = []
    for solver in ("dpmpp_2m", "heun"):
        for grad in WAYS:
            found = [measure(solver, grad, last) for last in LAST]
            whole = found[-1][1]
            for row, slope in found:
                cosine = torch.cosine_similarity(slope, whole, dim=0).item()
                size = (slope.norm() / whole.norm()).item()
                rows.append({**row, "cosine to that through all": cosine, "size beside it": size})
    save("recurrent", rows, steps=STEPS, samples=COUNT)


if __name__ == "__main__":
    main()
