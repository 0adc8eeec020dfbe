r"""Jobs: what they cost beside the plain call, what a second worker brings, and what the driver holds.

Ratios in one run, on the embedded digits and on a Gaussian of two numbers. Times are those of the clock, each the
least of some turns.

    python -m benchmarks.scale
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

import scoresde as ss

from .report import save

COUNT, SHARD, STEPS, TURNS = 256, 32, 20, 3
TINY = (1000, 10_000, 100_000, 1_000_000)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def layer(folder: Path) -> dict[str, object]:
    r"""The cost of a job in this process over plain calls on the same batches."""

    model, numbers = ss.load("digits"), itertools.count()
    options = {"steps": STEPS, "label": 3}
    ss.sample(model, SHARD, seed=0, **options)

    def plain() -> None:
        parts = [
            ss.sample(model, SHARD, seed=0, first_index=k, **options).x
            for k in range(0, COUNT, SHARD)
        ]
        torch.save(torch.cat(parts), folder / "plain.pt")

    def job() -> None:
        out = folder / f"layer{next(numbers)}"
        ss.jobs.sample(model, COUNT, out=out, shard_size=SHARD, progress=False, **options)

    pairs = [(timed(plain), timed(job)) for _ in range(TURNS)]
    seconds, of_job = (min(times) for times in zip(*pairs, strict=True))
    return {"what": "a job in this process over plain calls", "value": of_job, "beside": seconds, "unit": "s",
            "ratio": of_job / seconds}  # fmt: skip


def workers() -> list[dict[str, object]]:
    r"""The throughput of two workers over one, without their start."""

    found = {1: [], 2: []}
    for _, count in itertools.product(range(TURNS), (1, 2)):
        found[count].append(pooled(count))
    one, two = (min(found[count]) for count in (1, 2))
    return [
        {
            "what": "throughput of two workers over one",
            "value": two,
            "beside": one,
            "unit": "s",
            "ratio": one / two,
        }
    ]


def pooled(count: int) -> float:
    r"""Seconds of a job on workers that are there already: from its second shard on."""

    from scoresde.jobs.engines import Pool

    engine = Pool(_digits, count, 1)
    for k in range(count):
        engine.submit(("warm", k))
    while engine.busy:
        engine.ready()
    todo, start = list(range(0, 2 * COUNT, SHARD)), time.perf_counter()
    while todo or engine.busy:
        while todo and engine.free:
            engine.submit(("draw", todo.pop()))
        engine.ready()
    seconds = time.perf_counter() - start
    engine.close(kill=True)
    return seconds


def _digits(task: tuple[str, int]) -> int:
    model = ss.load("digits")
    return len(ss.sample(model, SHARD, steps=STEPS, label=3, first_index=task[1]))


def starts() -> list[dict[str, object]]:
    r"""The time until the first result of a new worker, of both kinds of pools."""

    from joblib.externals import loky

    def of(executor: object) -> Callable[[], None]:
        def run() -> None:
            with executor as pool:  # type: ignore[attr-defined]
                pool.submit(_loaded, 0).result()

        return run

    def ours() -> object:
        return loky.ProcessPoolExecutor(max_workers=1, env={"OMP_NUM_THREADS": "1"})

    def theirs() -> object:
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    times = [(timed(of(ours())), timed(of(theirs()))) for _ in range(TURNS)]
    one, other = (min(column) for column in zip(*times, strict=True))
    rows = [{"what": "start of a loky worker over concurrent.futures", "value": one, "beside": other, "unit": "s",
             "ratio": one / other}]  # fmt: skip
    try:
        import ray
    except ImportError:
        return rows
    start = timed(lambda: ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False))
    first = timed(lambda: ray.get(ray.remote(_loaded).remote(0)))
    ray.shutdown()
    return [*rows, {"what": "start of Ray, and of its first worker", "value": start, "beside": first, "unit": "s",
                    "ratio": start / first}]  # fmt: skip


def _loaded(_: int) -> int:
    return len(ss.sample(ss.load("digits"), 1, steps=1, label=3))


def memory() -> list[dict[str, object]]:
    r"""The peak memory of drivers of jobs of tiny samples, each in a process of its own, with one worker process."""

    rows = []
    for count in TINY:
        folder = tempfile.mkdtemp()
        code = f"from benchmarks.scale import tiny; print(tiny({count}, {folder!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        shutil.rmtree(folder)
        rows.append(
            {"what": f"peak memory of a driver, {count} samples", "value": float(done.stdout)}
        )
    first = float(rows[0]["value"])
    return [
        {**row, "beside": first, "unit": "MiB", "ratio": float(row["value"]) / first}
        for row in rows
    ]


def tiny(count: int, folder: str) -> float:
    r"""Runs a job of tiny samples, and returns the peak memory of this process, the driver, in MiB, as Linux says it."""

    model = ss.GaussianOracle(torch.zeros(2), 0.5)
    ss.jobs.sample(model, count, out=folder, workers=2, shard_size=500, steps=1, progress=False)
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    rows = [layer(folder), *workers(), *starts(), *memory()]
    shutil.rmtree(folder)
    save("scale", rows, threads=1)


if __name__ == "__main__":
    main()
