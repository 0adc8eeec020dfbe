r"""Public functions on any number of samples: shard by shard, into a folder."""

from pathlib import Path
from typing import Any

from solvers.doors.signatures import checked

from ..models.checks import check_count
from .folder import Folder
from .setup import Given, run
from .start import Workers
from .work import Made


@checked
def sample(
    model: Made,
    n: int,
    *,
    out: str | Path,
    workers: Workers = None,
    shard_size: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: object,
) -> Folder:
    r"""Draws any number of samples into a folder.

    A shard is one call of :func:`scoresde.sample`, whose samples depend on seed and index alone. Results have the
    same bits for any number of workers, in any order, whether the job was interrupted or not, on one machine and
    with one number of threads. The same call goes on with a job that was interrupted; one that differs is refused.

    Arguments:
        model: The score model; the name or file of one; or a function without arguments that makes one. Workers
            load the latter two themselves.
        n: The number of samples.
        out: The folder of the job: a path, or a URL that fsspec knows, such as `s3://bucket/job`.
        workers: The number of processes on this machine, "ray" for a Ray cluster that is there or is started
            here, or the address of one, as `ray://HOST:10001`. By default, this process.
        shard_size: The number of samples of a shard. By default, a sixteenth of all, and 256 at most.
        threads: The number of threads of a worker. By default, 1; this process keeps its own.
        seed: The seed.
        progress: Whether to show a progress bar.
        options: The options and conditions of :func:`scoresde.sample`; a condition has one value, or n.

    Returns:
        The results, which are read when they are needed.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the folder holds another job.
        OSError: If the folder cannot be written.

    Examples:
        >>> done = ss.jobs.sample(model, 6, out=folder / "many", shard_size=4, steps=4, progress=False)
        >>> torch.equal(done.tensor(), ss.sample(model, 6, steps=4).x)
        True
    """

    given = Given(out, workers, shard_size, threads, seed, progress, options)
    return run("sample", (model,), given, check_count("n", n, 1, None))


@checked
def likelihood(
    model: Made,
    x: Any,
    *,
    out: str | Path,
    workers: Workers = None,
    shard_size: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: object,
) -> Folder:
    r"""Computes the log-densities of any number of samples, as :func:`scoresde.log_likelihood`, into a folder.

    Its tensors are "nats", "stderr", "total", "calls", "derivatives", and the parts of the budget, as
    "budget.path".

    Arguments:
        model: As in :func:`scoresde.jobs.sample`.
        x: Data, with shape (N, *), possibly an array that is mapped from a file.
        out: The folder of the job.
        workers: The workers.
        shard_size: The number of samples of a shard.
        threads: The number of threads of a worker.
        seed: The seed of the probes.
        progress: Whether to show a progress bar.
        options: The options and conditions of :func:`scoresde.log_likelihood`; with `levels=`, those of
            :func:`scoresde.discrete_log_likelihood`.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the folder holds another job.
        OSError: If the folder cannot be written.

    Examples:
        >>> x = torch.zeros(3, 2)
        >>> done = ss.jobs.likelihood(model, x, out=folder / "nats", shard_size=2, progress=False)
        >>> torch.equal(done.tensor("nats"), ss.log_likelihood(model, x).nats)
        True
    """

    verb = "discrete_likelihood" if options.get("levels") is not None else "likelihood"
    given = Given(out, workers, shard_size, threads, seed, progress, options)
    return run(verb, (model,), given, x=x)


@checked
def encode(
    model: Made,
    x: Any,
    *,
    out: str | Path,
    workers: Workers = None,
    shard_size: int | None = None,
    threads: int | None = None,
    progress: bool = True,
    **options: object,
) -> Folder:
    r"""Turns any number of samples into latents, as :func:`scoresde.encode`, into a folder.

    Arguments:
        model: As in :func:`scoresde.jobs.sample`.
        x: Data, with shape (N, *), possibly an array that is mapped from a file.
        out: The folder of the job.
        workers: The workers.
        shard_size: The number of samples of a shard.
        threads: The number of threads of a worker.
        progress: Whether to show a progress bar.
        options: The options and conditions of :func:`scoresde.encode`.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the folder holds another job.
        OSError: If the folder cannot be written.

    Examples:
        >>> z = ss.jobs.encode(model, torch.ones(3, 2), out=folder / "latents", progress=False)
        >>> z.tensor().shape
        torch.Size([3, 2])
    """

    given = Given(out, workers, shard_size, threads, 0, progress, options)
    return run("encode", (model,), given, x=x)


@checked
def decode(
    model: Made,
    z: Any,
    *,
    out: str | Path,
    workers: Workers = None,
    shard_size: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: object,
) -> Folder:
    r"""Turns any number of latents into data, as :func:`scoresde.decode`, into a folder.

    Arguments:
        model: As in :func:`scoresde.jobs.sample`.
        z: Latents, with shape (N, *), or the results of :func:`scoresde.jobs.encode`, whose solver, grid and
            companions are then used backwards unless you pass others.
        out: The folder of the job.
        workers: The workers.
        shard_size: The number of samples of a shard.
        threads: The number of threads of a worker.
        seed: The seed of the noise.
        progress: Whether to show a progress bar.
        options: The options and conditions of :func:`scoresde.decode`.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the folder holds another job.
        OSError: If the folder cannot be written.

    Examples:
        >>> z = ss.jobs.encode(model, torch.ones(3, 2), out=folder / "there", progress=False)
        >>> x = ss.jobs.decode(model, z, out=folder / "back", progress=False, denoise=False).tensor()
        >>> bool((x - 1).abs().max() < 1e-3)
        True
    """

    given = Given(out, workers, shard_size, threads, seed, progress, options)
    return run("decode", (model,), given, z=z)


@checked
def edit(
    source: Made,
    target: Made,
    x: Any,
    *,
    out: str | Path,
    workers: Workers = None,
    shard_size: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: object,
) -> Folder:
    r"""Edits any number of samples, as :func:`scoresde.edit`, into a folder.

    Arguments:
        source: The model of the given data, with its conditions bound.
        target: The model of the edited data, with its conditions bound.
        x: Data, with shape (N, *), possibly an array that is mapped from a file.
        out: The folder of the job.
        workers: The workers.
        shard_size: The number of samples of a shard.
        threads: The number of threads of a worker.
        seed: The seed of the noise.
        progress: Whether to show a progress bar.
        options: The options of :func:`scoresde.edit`, with one strength for all samples.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the folder holds another job.
        OSError: If the folder cannot be written.

    Examples:
        >>> x, options = torch.ones(3, 2), {"strength": 0.5, "method": "noise", "steps": 8}
        >>> done = ss.jobs.edit(model, model, x, out=folder / "edits", progress=False, **options)
        >>> torch.equal(done.tensor(), ss.edit(model, model, x, **options).x)
        True
    """

    given = Given(out, workers, shard_size, threads, seed, progress, options)
    return run("edit", (source, target), given, x=x)
