r"""Jobs on a Ray cluster of two nodes, some of which die: nothing is lost or done twice, and bits are the same."""

import importlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.jobs import Folder, drive, on_ray
from scoresde.jobs.engines import TRIES, Died, Engine, Here
from scoresde.jobs.on_ray import PER_SLOT, Ray
from scoresde.jobs.work import Done

ray = (
    on_ray._ray() if on_ray.find_spec("ray") else pytest.skip("needs ray", allow_module_level=True)
)
pytestmark = pytest.mark.peers
COUNT, SIZE, STEPS, PAUSE = 48, 2, 4, 0.12
KILLS, BEFORE, AFTER = 5, 4, 0.8  # deaths of a job; shards before each one, and seconds at most
LINUX = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="it asks Linux for processes"
)
ROOT = Path(__file__).parents[2]
SCRIPT = "from tests.scoresde.test_jobs_on_ray import job; import sys; job(sys.argv[1], 'ray')"
FAST = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 300}  # to find dead nodes


class Odd(Exception):
    r"""An error that does not come back from its bytes."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Strict(ValueError):
    r"""An error of the user's code."""


def network(x: Tensor, t: Tensor) -> Tensor:
    r"""The mean of normal data with variance 1/4, slowly."""

    time.sleep(PAUSE)
    return x / (1 + 4 * (t * t).reshape(-1, 1))


def made() -> ss.NetworkScore:
    return ss.NetworkScore(network, ss.EDM(), "data", shape=(2,), data_scale=1.0)


def wrong(x: Tensor, t: Tensor) -> Tensor:
    raise Strict("two words")


class Work:
    r"""Work that tells where it is done, and counts how often it was unpacked there.

    Arguments:
        folder: Where it notes that it was tried.
        cuda: Whether it wants a GPU.
    """

    unpacked = 0

    def __init__(self, folder: Path, cuda: bool = False) -> None:
        self.folder, self.cuda = folder, cuda

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).unpacked += 1
        self.__dict__ |= state

    def __call__(self, task: object) -> object:
        (self.folder / f"{os.getpid()} {task} {time.time_ns()}").touch()
        if task == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "odd":
            raise Odd("one", "two")
        time.sleep(0.2)
        node = ray.get_runtime_context().get_node_id()
        return node, os.getpid(), self.unpacked, torch.get_num_threads(), ray.get_gpu_ids()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    r"""A head that does no work, and two nodes with a CPU each, one of which has what Ray takes for a GPU."""

    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "include_dashboard": False, "ray_client_server_port": port, "_system_config": FAST,
        },
    )  # fmt: skip
    found.client = f"ray://127.0.0.1:{port}"
    found.add_node(num_cpus=1)
    found.add_node(num_cpus=1, num_gpus=1)
    yield found
    found.shutdown()


@pytest.fixture(autouse=True)
def address(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    r"""The digests of all shards of a job that nobody killed, in this process."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.PAUSE", 0.0)
        return digests(job(tmp_path_factory.mktemp("whole"), None))


def job(out: str | Path, workers: str | None) -> Folder:
    torch.set_default_dtype(torch.float64)
    threads = 1 if workers else None
    return ss.jobs.sample(
        made, COUNT, out=out, workers=workers, shard_size=SIZE, threads=threads, solver="heun", steps=STEPS,
        progress=False,
    )  # fmt: skip


def digests(done: Folder) -> list[str]:
    r"""The digests of the shards of a finished job, after a look that no sample is missing or there twice."""

    assert done.table()["index"] == list(range(COUNT))
    assert not list(Path(done.store.url).rglob("*.part"))
    return [shard.digest for shard in done.shards()]


def results(engine: Engine, *tasks: object) -> list[Any]:
    for task in tasks:
        engine.submit(task)
    found = []
    while engine.busy:
        found += [outcome for _, outcome in engine.ready()]
    return found


@pytest.mark.parametrize("client", [False, True])
def test_bits_are_those_of_this_process(
    tmp_path: Path, whole: list[str], cluster: Any, client: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    r"""Also where the folder is a relative path, and the default dtype another than that of new processes."""

    monkeypatch.chdir(tmp_path)
    assert digests(job(Path("here"), cluster.client if client else "ray")) == whole
    assert not ray.is_initialized()


def test_both_nodes_work_and_each_worker_unpacks_once(tmp_path: Path) -> None:
    engine = Ray(Work(tmp_path), "ray", 1)
    try:
        assert engine.free == PER_SLOT * 2
        found = results(engine, *range(engine.free))
        assert not engine.busy
        found += results(engine, *range(PER_SLOT * 20))
    finally:
        engine.close()
    nodes, processes, unpacked, threads, gpus = map(set, zip(*map(tuple_of, found), strict=True))
    assert len(nodes) == len(processes) == 2
    assert (unpacked, threads, gpus) == ({1}, {1}, {()})


def tuple_of(found: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*found[:-1], tuple(found[-1]))


def test_work_on_a_gpu_takes_one_and_keeps_its_worker(tmp_path: Path) -> None:
    engine = Ray(Work(tmp_path, cuda=True), "ray", 1)
    try:
        assert engine.free == PER_SLOT
        found = results(engine, 0, 1, 2)
    finally:
        engine.close()
    assert len({process for _, process, *_ in found}) == 1
    assert [gpus for *_, gpus in found] == [[0]] * 3


def test_deaths_of_a_task_are_counted_and_errors_come_back(tmp_path: Path) -> None:
    engine = Ray(Work(tmp_path), "ray", 1)
    try:
        died, odd = (results(engine, task)[0] for task in ("kill", "odd"))
    finally:
        engine.close()
    assert isinstance(died, Died)
    assert str(died).startswith(f"{TRIES} workers died at it: The worker died unexpectedly")
    assert len(list(tmp_path.glob("* kill *"))) == TRIES
    assert isinstance(odd, RuntimeError)
    assert str(odd) == "Odd: one and two"
    assert len(list(tmp_path.glob("* odd *"))) == 1


def test_an_error_of_the_model_is_what_it_was(tmp_path: Path) -> None:
    model = ss.NetworkScore(wrong, ss.EDM(), "data", shape=(2,), data_scale=1.0)
    with pytest.raises(Strict) as caught:
        ss.jobs.sample(model, 4, out=tmp_path, workers="ray", steps=STEPS, progress=False)
    assert type(caught.value) is Strict
    assert str(caught.value) == "two words"
    assert "in wrong" in str(caught.value.__cause__)
    assert not ray.is_initialized()


@pytest.mark.parametrize("client", [False, True])
def test_nodes_without_the_package_are_told(
    tmp_path: Path, cluster: Any, client: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def call(*_): pass")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "only_here", raising=False)
    only_here = importlib.import_module("only_here")
    shutil.rmtree(tmp_path)
    monkeypatch.setattr(on_ray, "call", only_here.call)
    engine = Ray(Work(tmp_path), cluster.client if client else "ray", 1)
    with pytest.raises(ImportError, match="lacks this scoresde; .*No module named 'only_here'"):
        (error,) = results(engine, 0)
        engine.close(kill=True)
        raise error
    engine.close(kill=True)


def test_a_connection_of_the_user_is_used_and_kept(tmp_path: Path, cluster: Any) -> None:
    ray.init(cluster.address, log_to_driver=False)
    try:
        with pytest.raises(
            ValueError, match=r"is connected to a Ray cluster already; pass workers='ray'"
        ):
            Ray(Work(tmp_path), cluster.client, 1)
        Ray(Work(tmp_path), "ray", 1).close(kill=True)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.mark.filterwarnings("ignore:a task takes 2 CPUs, which no node of the cluster has")
def test_a_task_that_fits_nowhere_waits_for_a_node(tmp_path: Path, cluster: Any) -> None:
    engine = Ray(Work(tmp_path), "ray", 2)
    try:
        assert engine.free == PER_SLOT
        engine.submit(0)
        assert not engine.ready()
        node = cluster.add_node(num_cpus=2)
        assert results(engine)[0][3] == 2
        cluster.remove_node(node)
    finally:
        engine.close()


def test_a_model_that_cannot_be_shipped_is_refused_before_ray_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    lock = threading.Lock()
    model = ss.NetworkScore(
        lambda x, t: x if lock else t, ss.EDM(), "data", shape=(2,), data_scale=1.0
    )
    with pytest.raises(
        ValueError, match=r"cannot be shipped to workers .*lock.*; save it with ss.save"
    ):
        ss.jobs.sample(model, 4, out=tmp_path, workers="ray", steps=STEPS, progress=False)


@pytest.mark.parametrize("through", ["ray://", "RAY_ADDRESS="])
@pytest.mark.parametrize("listens", [False, True])
def test_an_address_without_a_cluster_is_named_with_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str, listens: bool
) -> None:
    monkeypatch.setattr(on_ray, "PATIENCE", 1.0)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        if listens:
            place.listen()
        where = f"127.0.0.1:{place.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", where)
        tried = f"{'gRPC over ' if listens else ''}a TCP connection to 127.0.0.1, port {where[10:]} failed"
        with pytest.raises(
            ConnectionError, match=f"no Ray cluster answers at {through}{where}: {tried}"
        ):
            Ray(Work(tmp_path), f"ray://{where}" if through == "ray://" else "ray", 1)
    assert not ray.is_initialized()


def test_a_folder_that_the_nodes_do_not_share_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Here(lambda task: Done("digest"))
    monkeypatch.setattr(drive, "started", lambda *_: elsewhere)
    with pytest.raises(FileNotFoundError, match="shard 0 was written, but not on this machine"):
        job(tmp_path, "ray")


def test_a_cluster_of_its_own_ends_with_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(
        ValueError, match="a task takes 1000 CPUs, which this machine does not have"
    ):
        Ray(Work(tmp_path), "ray", 1000)
    assert not ray.is_initialized()


def until(holds: Callable[[], object], seconds: float = 120.0) -> None:
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop
        time.sleep(0.02)


def busy(node: Any) -> list[int]:
    r"""The processes of a node that do a task now."""

    (raylet,) = node.all_processes["raylet"]
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(place.read_text().rpartition(")")[2].split()[1])
            if (
                parent == raylet.process.pid
                and b"ray::call" in (place.parent / "cmdline").read_bytes()
            ):
                found.append(int(place.parent.name))
        except OSError:  # it has ended
            continue
    return found


def kill_worker(cluster: Any, chance: random.Random) -> None:
    until(lambda: any(map(busy, cluster.worker_nodes)))
    workers = [pid for node in cluster.worker_nodes for pid in busy(node)]
    os.kill(chance.choice(workers), signal.SIGKILL)


def kill_node(cluster: Any, chance: random.Random) -> None:
    until(lambda: any(map(busy, cluster.worker_nodes)))
    node = chance.choice([node for node in cluster.worker_nodes if busy(node)])
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1)


@LINUX
@pytest.mark.parametrize("seed", range(2))
def test_a_driver_that_is_killed_leaves_no_work_behind(
    tmp_path: Path, whole: list[str], cluster: Any, seed: int
) -> None:
    r"""Ray ends the tasks of a driver that is gone, and the same call goes on."""

    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT)
    until(lambda: list((tmp_path / "shards").glob("*.safetensors")))
    time.sleep(random.Random(seed).uniform(0, AFTER))
    driver.kill()
    driver.wait()
    until(lambda: not any(map(busy, cluster.worker_nodes)))
    assert 0 < len(Folder(tmp_path).finished) < COUNT // SIZE
    assert digests(job(tmp_path, "ray")) == whole


@LINUX
@pytest.mark.filterwarnings("ignore:shards .* were set aside")
@pytest.mark.parametrize("seed", range(20 // KILLS))
@pytest.mark.parametrize("kill", [kill_worker, kill_node])
def test_deaths_at_any_moment_lose_nothing(
    tmp_path: Path, whole: list[str], cluster: Any, kill: Callable[..., None], seed: int
) -> None:
    chance, killed = random.Random(seed), list[int]()

    def there() -> int:
        return len(list((tmp_path / "shards").glob("*.safetensors")))

    with ThreadPoolExecutor(1) as driver:  # nodes are added by the main thread
        running = driver.submit(job, tmp_path, "ray")
        for before in range(1, KILLS * BEFORE, BEFORE):
            until(lambda: there() >= before)  # noqa: B023
            time.sleep(chance.uniform(0, AFTER))
            killed.append(there())
            kill(cluster, chance)
        done = running.result()
    assert max(killed) < COUNT // SIZE
    if done.progress().aside:  # a shard that died thrice comes with the next run
        done = job(tmp_path, "ray")
    assert digests(done) == whole
