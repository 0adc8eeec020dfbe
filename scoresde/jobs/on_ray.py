r"""Workers on a Ray cluster: its tasks, with its retries, placement, back-pressure and autoscaling.

References:
    Moritz et al., "Ray: A distributed framework for emerging AI applications", OSDI 2018.
"""

import hashlib
import logging
import os
import socket
from contextlib import suppress
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..doors.warning import warn
from .engines import PAUSE, TRIES, Died, Work, call, reason, thread_variables
from .shipping import packed

RAY, ADDRESS = "ray", "RAY_ADDRESS"
PER_SLOT = 2  # tasks in flight for each that can run: the next one waits there, and an autoscaler sees demand
LACKS = "a node of the Ray cluster lacks this scoresde; install it with what it needs on all nodes"
UNIMPORTED = "remote function failed to import"  # in a message of Ray
PORT = 10001  # of Ray for clients
PATIENCE = 10.0  # seconds for a connection
DEFAULTS = {  # of Ray, where the user has set none
    "RAY_task_oom_retries": str(TRIES - 1),  # it would go on for ever
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "5",  # of three
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died|failed. There are|Raylet is terminated|has been marked dead",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Ray:
    r"""Creates an engine of tasks on a Ray cluster.

    A connection that this process has is used, and kept; any other is made here and ends with the engine.

    Arguments:
        work: The work; a task of one whose `cuda` is true takes a GPU, too.
        address: "ray" for the cluster in RAY_ADDRESS or on this machine, or a new one on this machine; or
            "ray://HOST:PORT".
        threads: The number of threads of a task, which takes as many CPUs.

    Raises:
        ConnectionError: If no cluster answers.
        ValueError: If the work cannot be shipped.
    """

    def __init__(self, work: Work, address: str, threads: int) -> None:
        self._ray, payload = _ray(), packed(work)
        cuda = bool(getattr(work, "cuda", False))
        self._needs = {"CPU": threads, **({"GPU": 1} if cuda else {})}
        self._running: dict[Any, Any] = {}
        self._ours = not self._ray.is_initialized()
        new = _connect(self._ray, address)
        try:
            _check_fit(self._ray, self._needs, new)
            self._slots = self._slots_now()
            self._key = hashlib.sha256(payload).hexdigest()
            self._payload = self._ray.put(np.frombuffer(payload, np.uint8))  # mapped, not copied
        except BaseException:
            self.close(kill=True)
            raise
        self._call = self._ray.remote(
            num_cpus=threads,
            num_gpus=int(cuda),
            max_calls=0,  # Ray would end a worker after each task on a GPU
            max_retries=TRIES - 1,
            runtime_env={"env_vars": thread_variables(threads)},
        )(call)

    @property
    def free(self) -> int:
        return max(0, PER_SLOT * self._slots - len(self._running))

    @property
    def busy(self) -> int:
        return len(self._running)

    def submit(self, task: Any) -> None:
        try:
            self._running[self._call.remote(self._key, self._payload, task)] = task
        except ModuleNotFoundError as error:  # a client asks the cluster at once
            raise ImportError(f"{LACKS} ({reason(error)})") from None

    def ready(self) -> list[tuple[Any, Any]]:
        self._slots = self._slots_now()
        refs = list(self._running)
        done, _ = self._ray.wait(refs, num_returns=1, timeout=PAUSE)
        if done:
            done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return [(self._running.pop(ref), self._outcome(ref)) for ref in done]

    def close(self, kill: bool = False) -> None:
        with suppress(Exception):  # of a connection that was lost
            for ref in self._running if kill else ():
                self._ray.cancel(ref, force=True)
        self._running.clear()
        self._payload = None
        if self._ours:
            self._ray.shutdown()

    def _slots_now(self) -> int:
        r"""How many tasks the cluster can run at once, and at least one, so that it may grow from nothing."""

        there = self._ray.cluster_resources()
        return max(1, min(int(there.get(name, 0) // count) for name, count in self._needs.items()))

    def _outcome(self, ref: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            return _original(error)
        except errors.OutOfMemoryError as error:
            return MemoryError(reason(error))
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
        ) as error:
            return Died(f"{TRIES} workers died at it: {reason(error).split('. ')[0]}")
        except errors.RayError as error:
            return error


def check_address(address: str) -> None:
    r"""Refuses what is not the address of a Ray cluster, and Ray where it is missing.

    Raises:
        ValueError: If it is neither "ray" nor "ray://HOST:PORT".
        ImportError: If Ray is not installed.
    """

    place = urlsplit(address)
    try:
        whole = place.scheme == RAY and place.hostname and place.port and not place.path
    except ValueError:  # of the port
        whole = False
    if address != RAY and not whole:
        raise ValueError(
            f"workers must be a number, 'ray' or 'ray://HOST:PORT', but is {address!r}."
        )
    if find_spec("ray") is None:
        raise ImportError(f"workers={address!r} needs ray: pip install 'scoresde[ray]'.")


def _ray() -> Any:
    for name, value in DEFAULTS.items():  # which Ray reads when it is imported
        os.environ.setdefault(name, value)
    import ray

    return ray


def _connect(ray: Any, address: str) -> bool:
    r"""Connects this process to a cluster, and returns whether that was started for it."""

    if ray.is_initialized():
        if address != RAY:
            raise ValueError(
                f"workers={address!r}, but this process is connected to a Ray cluster already; pass "
                f"workers={RAY!r} to use that one, or call ray.shutdown() before."
            )
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    where = os.environ.get(ADDRESS, "auto") if address == RAY else address
    if where.startswith(f"{RAY}://"):  # whose tasks belong to a process there
        name = "RAY_task_oom_retries"
        quiet["runtime_env"] = {"env_vars": {name: DEFAULTS[name]}}
    if where not in ("auto", "local"):
        _reach(ray, where, f"{ADDRESS}={where}" if address == RAY else where, quiet)
        return False
    with suppress(ConnectionError):  # none runs on this machine
        if where == "auto":
            ray.init("auto", **quiet)
            return False
    ray.init("local", include_dashboard=False, **quiet)
    return True


def _reach(ray: Any, address: str, name: str, quiet: dict[str, Any]) -> None:
    r"""Connects to an address, after a look whether gRPC answers there, without which Ray may wait for ever."""

    import grpc

    place = urlsplit(address if "://" in address else f"//{address}")
    host, port = place.hostname, place.port or PORT
    what = f"a TCP connection to {host}, port {port}"
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
        if not os.environ.get("RAY_USE_TLS"):
            what = f"gRPC over {what}"
            with grpc.insecure_channel(place.netloc) as channel:
                grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        what = f"ray.init({address!r})"
        ray.init(address, **quiet)
    except (Exception, grpc.FutureTimeoutError) as error:
        ray.shutdown()  # what a client left half done
        raise ConnectionError(
            f"no Ray cluster answers at {name}: {what} failed ({reason(error)}); start one there with "
            "`ray start --head`, or pass the address of another."
        ) from None


def _check_fit(ray: Any, needs: dict[str, int], new: bool) -> None:
    r"""Says so if no node can run a task, which then waits for one that can."""

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= count for name, count in needs.items()) for node in nodes):
        return
    words = " and ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in needs.items())
    if new:
        raise ValueError(
            f"a task takes {words}, which this machine does not have; pass fewer threads, or the address of a "
            "cluster that has them."
        )
    warn(f"a task takes {words}, which no node of the cluster has; the job waits until one joins.")


def _original(error: Any) -> BaseException:
    r"""The error of the user's code in an error of Ray, which stays as its cause, with the worker's traceback."""

    found = error.cause
    if not isinstance(found, Exception):
        return error
    if UNIMPORTED in str(found):
        found = ImportError(f"{LACKS} ({str(found).strip().splitlines()[-1]})")
    found.__cause__ = error
    return found
