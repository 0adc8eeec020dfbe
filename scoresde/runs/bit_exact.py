r"""A check that a network is bitwise reproducible, which exact inversion requires.

The order of sums in matrix products depends on the number of rows. So networks are called with blocks of a fixed
number of rows, in which the bits of a row must depend on that row alone.
"""

from collections.abc import Mapping
from dataclasses import is_dataclass, replace

import torch
from torch import Tensor

from solvers.noise.brownian import FRESH, keyed_normal
from solvers.problem import Problem

from ..doors.warning import warn
from .run import Run

MOST = 64  # rows of a block


def settle(run: Run, x: Tensor) -> Run:
    r"""Returns a run whose exact solver has a block size that the network allows; other runs are unchanged.

    Arguments:
        run: The run.
        x: Data, with shape (B, *).

    Raises:
        ValueError: If the network gives different bits for the same input.
    """

    solver, settings = run.settings.method, run.settings
    if not solver.exact or not is_dataclass(solver):
        return run
    if settings.batch_size is not None:
        raise ValueError(
            f"batch_size= has no effect on {solver}, which sets the size of its blocks itself; pass "
            f"solver='{str(solver).split(':')[0]}:block={settings.batch_size}'."
        )
    fits = _Check(run, x)
    if solver.block:
        if not fits(solver.block):
            raise ValueError(
                f"in blocks of {solver.block}, the network's bits for a row depend on other rows; pass "
                "block=1, or leave out block= to let it be found."
            )
        return run
    block = min(MOST, 1 << (len(x) - 1).bit_length())
    while not fits(block) and block > 1:
        block //= 2
    name = f"{str(solver).split(':block')[0]}:block={block}"
    return replace(run, settings=replace(settings, solver=replace(solver, block=block, name=name)))


class _Check:
    r"""Whether, in blocks of some size, the bits of each row are independent of the other rows."""

    def __init__(self, run: Run, x: Tensor) -> None:
        reverse, times = run.reverse, run.times
        self.problem: Problem = reverse.problem()
        some = times[[0, len(times) // 2, -1]]
        some = some if some.ndim == 1 else some[:, 0]
        self.clocks, self.count = reverse.to_clock(some), len(x)
        self.states = [reverse.enter(x.double(), t) for t in some]

    def __call__(self, block: int) -> bool:
        rows = torch.arange(block) % self.count
        for clock, states in zip(self.clocks, self.states, strict=True):
            x = states[rows.to(states.device)]
            size, index = x[0].numel(), torch.arange(block, device=x.device)
            x = x + keyed_normal(0, index, FRESH, 0, size).reshape(x.shape)  # no two alike
            known = self._call(clock, rows, x)
            if not torch.equal(known, self._call(clock, rows, x)):
                raise ValueError(
                    "the network gives different bits for the same input, so nothing can be undone to the "
                    "last bit: call model.eval(), and torch.use_deterministic_algorithms(True) with "
                    "torch.backends.cudnn.benchmark=False; or use 'reversible_heun'."
                )
            for order in (index.flip(0), index.roll(1)):
                if not torch.equal(known[order], self._call(clock, rows[order.cpu()], x[order])):
                    return False
            alone = torch.zeros_like(x)
            alone[-1] = x[-1]
            if not torch.equal(known[-1], self._call(clock, rows, alone)[-1]):
                return False
        return True

    def _call(self, clock: Tensor, rows: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.problem.subset(rows).at(clock[None], x)[0](x)


def environment(device: torch.device) -> dict[str, object]:
    r"""Returns the settings that the last bits of a network depend on, besides its input."""

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"torch": torch.__version__, "device": gpu or device.type, "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "precision of products": torch.get_float32_matmul_precision()}  # fmt: skip


def warn_of_other_bits(known: Mapping[str, object], device: torch.device) -> None:
    r"""Warns if latents were made under settings in which the network may have given other bits."""

    here = environment(device)
    changed = [f"{name} {known.get(name)}, now {value}" for name, value in here.items()
               if known.get(name) != value]  # fmt: skip
    if changed:
        warn(
            f"these latents were made with {'; '.join(changed)}: the network may give other bits, and "
            "the way back may not be exact; compare with the data, or decode where they were made."
        )
