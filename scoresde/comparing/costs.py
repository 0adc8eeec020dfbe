r"""The cost of a run: seconds and peak memory."""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Cost:
    r"""The cost of a block.

    Arguments:
        seconds: The time it took.
        mebibytes: The peak of its memory above that at its start: of the accelerator, or of the process, if the
            system reports it.
    """

    seconds: float = 0.0
    mebibytes: float | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    r"""Measures the cost of its block."""

    cost, before = Cost(), _start_of_memory(device)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        peak = _peak_of_memory(device)  # waits for the accelerator
        cost.seconds = time.perf_counter() - start
        if before is not None and peak is not None:
            cost.mebibytes = (peak - before) / 2**20


def _start_of_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc: returns memory freed by earlier runs
        RESET.write_text("5")  # Linux: resets the peak of the process
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _peak_of_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{name}:")), None)
