r"""What a run costs: seconds, and the memory it takes at most."""

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
    r"""What a block cost.

    Arguments:
        seconds: The time it took.
        mebibytes: How far its memory rose above that at its start, at its peak: of the accelerator,
            or of the process, where the system tells.
    """

    seconds: float = 0.0
    mebibytes: float | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    r"""Measures the block under it."""

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
        ctypes.CDLL(None).malloc_trim(0)  # glibc: what earlier runs freed goes back to the system
        RESET.write_text("5")  # Linux: the peak of the process starts anew
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
