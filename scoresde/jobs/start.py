r"""The choice of an engine."""

from typing import TypeAlias

from ..doors.warning import warn
from .engines import Engine, Here, Pool, Work
from .on_ray import Ray, check_address

Workers: TypeAlias = int | str | None


def check_workers(workers: object) -> Workers:
    r"""Returns the workers of a call.

    Raises:
        ValueError, TypeError: If it is neither a positive number, nor "ray" or the address of a cluster.
    """

    if workers is None:
        return None
    if isinstance(workers, bool) or not isinstance(workers, int | str):
        raise TypeError(
            f"workers must be a number, 'ray' or 'ray://HOST:PORT', but is {workers!r}."
        )
    if isinstance(workers, str):
        if workers.isdigit():
            return check_workers(int(workers))
        check_address(workers)
        return workers
    if workers < 1:
        raise ValueError(
            f"workers must be at least 1, but is {workers}; leave it out to work in this process."
        )
    return workers


def started(workers: Workers, work: Work, threads: int, tasks: int) -> Engine:
    r"""Returns an engine for work.

    Arguments:
        workers: `None` or 1 for this process, a number of processes, "ray", or the address of a Ray cluster.
        work: The work.
        threads: The number of threads of each worker.
        tasks: The number of tasks there will be.
    """

    if workers is None or workers == 1:
        return Here(work)
    if isinstance(workers, str):
        return Ray(work, workers, threads)
    if workers > tasks:
        warn(
            f"workers={workers} are more than the {tasks} shards that are left, so {tasks} will work; pass a "
            "smaller shard_size= to a new job to use more."
        )
    return Pool(work, min(workers, tasks), threads)
