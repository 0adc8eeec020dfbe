r"""Jobs whose driver or workers are killed at any moment lose nothing, and keep their bits."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import scoresde as ss
from scoresde.jobs import Folder

from .job_models import CALLS, made_slowly

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="it asks Linux for processes"
)
COUNT, SIZE, STEPS = 40, 2, 4
ROOT = Path(__file__).parents[2]
SCRIPT = "from tests.scoresde.test_jobs_killed import job; import sys; job(sys.argv[1], 2)"


def job(out: str | Path, workers: int | None = None) -> Folder:
    torch.set_default_dtype(torch.float64)
    return ss.jobs.sample(
        made_slowly, COUNT, out=out, workers=workers, shard_size=SIZE, solver="heun", steps=STEPS,
        label=torch.arange(COUNT) / COUNT, threads=torch.get_num_threads(), progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], int]:
    r"""The digests of all shards of a job that nobody killed, and the network calls of each."""

    CALLS[0] = 0
    done = job(tmp_path_factory.mktemp("whole"))
    return [shard.digest for shard in done.shards()], CALLS[0] // done.manifest.shards


def children(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(place.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(place.parent.name))
        except OSError:  # it has ended
            continue
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def until(holds: Callable[[], object], seconds: float = 120.0) -> None:
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop
        time.sleep(0.01)


def moments(fast: int) -> list[object]:
    return [k if k < fast else pytest.param(k, marks=pytest.mark.slow) for k in range(20)]


def assert_nothing_is_lost(out: Path, whole: tuple[list[str], int], orphans: bool = False) -> None:
    r"""What is there is right; going on begins at once, and computes what is missing, once.

    Workers that have lost their driver may still finish a shard, which is then not missing any more.
    """

    digests, calls = whole
    there = [int(file.name[:7]) for file in (out / "shards").glob("*.safetensors")]
    CALLS[0] = 0
    done = job(out)
    missing = len(digests) - len(there)
    assert CALLS[0] == calls * missing or (orphans and CALLS[0] < calls * missing)
    assert [shard.digest for shard in done.shards()] == digests
    assert done.table()["index"] == list(range(COUNT))
    assert orphans or not list(out.rglob("*.part"))


@pytest.mark.parametrize("seed", moments(3))
def test_a_driver_that_works_itself_is_killed(
    tmp_path: Path, seed: int, whole: tuple[list[str], int]
) -> None:
    wait = random.Random(seed).uniform(0, 1.0)
    child = os.fork()
    if child == 0:
        job(tmp_path)
        os._exit(0)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert_nothing_is_lost(tmp_path, whole)


@pytest.mark.parametrize("seed", moments(1))
def test_a_driver_of_workers_is_killed(
    tmp_path: Path, seed: int, whole: tuple[list[str], int]
) -> None:
    r"""Its workers end by themselves, also those that have nothing to do."""

    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT)
    until(lambda: list((tmp_path / "shards").glob("*.safetensors")))
    time.sleep(random.Random(seed).uniform(0, 0.5))
    workers = [pid for pid in children(driver.pid) if is_worker(pid)]
    driver.kill()
    driver.wait()
    assert_nothing_is_lost(tmp_path, whole, orphans=True)
    until(lambda: not any(map(is_worker, workers)))


LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


@pytest.mark.slow
def test_an_interrupt_from_the_terminal_is_answered_by_the_driver_alone(
    tmp_path: Path, whole: tuple[list[str], int]
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", LISTENING + SCRIPT, str(tmp_path)],  # also as a job of a shell
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: list((tmp_path / "shards").glob("*.safetensors")))
    workers = [pid for pid in children(driver.pid) if is_worker(pid)]
    os.killpg(driver.pid, signal.SIGINT)
    said = driver.communicate(timeout=60)[1]
    assert "of 20 shards are in" in said
    assert said.rstrip().endswith("run the same again to go on.")
    assert_nothing_is_lost(tmp_path, whole, orphans=True)
    until(lambda: not any(map(is_worker, workers)))


def kill_workers(
    times: int, seed: int, out: Path, ended: threading.Event, killed: list[int]
) -> None:
    r"""Kills random workers of this process at random moments, once they have begun."""

    chance = random.Random(seed)
    until(lambda: list((out / "shards").glob("*.safetensors")) or ended.is_set())
    while len(killed) < times and not ended.wait(chance.uniform(0, 0.3)):
        workers = [pid for pid in children(os.getpid()) if is_worker(pid)]
        if workers:
            killed.append(chance.choice(workers))
            os.kill(killed[-1], signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:shards .* were set aside")
@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 20])
def test_workers_are_killed(tmp_path: Path, times: int, whole: tuple[list[str], int]) -> None:
    ended, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_workers, args=(times, 0, tmp_path, ended, killed))
    killer.start()
    try:
        job(tmp_path, workers=2)
    finally:
        ended.set()
        killer.join()
    assert len(killed) == times
    assert_nothing_is_lost(tmp_path, whole)
