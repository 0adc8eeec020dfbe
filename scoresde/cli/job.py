r"""Commands on any number of samples, which go on where they were interrupted: with `--out` as a folder."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from ..jobs import Folder
from ..jobs import open as opened
from ..jobs.start import check_workers
from .options import report


def is_job(out: Path | None, workers: str | None, status: bool, as_json: bool) -> bool:
    r"""Returns whether a command is a job, after a check that its options fit.

    Arguments:
        out: The file or folder to write.
        workers: The workers, if they were passed.
        status: Whether to print how far the job is, and end.
        as_json: Whether to print JSON.
    """

    check_workers(workers)
    if out is not None and not out.suffix:
        if status:
            report(_state(opened(url_of(out))), as_json)
            raise typer.Exit
        return True
    if workers is not None or status:
        wanted = "--workers" if workers is not None else "--status"
        raise ValueError(
            f"{wanted} needs --out with a folder, in which the job keeps what is done, not "
            f"{'nothing' if out is None else out}."
        )
    return False


def into_folder(
    function: Callable[..., Folder], *arguments: Any, out: Path, as_json: bool, **options: Any
) -> None:
    r"""Runs a job, and reports its results.

    Arguments:
        function: A function of :mod:`scoresde.jobs`.
        arguments: Its arguments.
        out: The folder.
        as_json: Whether to print JSON.
        options: Its options.
    """

    try:
        done = function(*arguments, out=url_of(out), progress=not as_json, **options)
    except KeyboardInterrupt as stopped:
        sys.stderr.write(f"\nstopped: {stopped}\n")
        raise
    report(_state(done) | _means(done), as_json)


def refuse(**options: object) -> None:
    r"""Refuses options that a job does not take."""

    for name, value in options.items():
        if value is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} has no effect where --out is a folder; leave it out.")


def url_of(out: Path) -> str:
    r"""Returns a path or URL as it was written, since a path has one slash where a URL has two."""

    return re.sub(r"^([a-z][a-z0-9+]+):/(?!/)", r"\1://", str(out))


def _state(folder: Folder) -> dict[str, object]:
    state = folder.progress()
    aside = {f"shard {number}": words for number, words in state.aside.items()}
    return {
        "samples": f"{state.samples} of {state.count}"
        if state.samples < state.count
        else state.count,
        "failed": state.failed,
        "set aside": aside or None,
        "running": "yes" if state.running else "no",
        "out": folder.store.url,
    }


def _means(folder: Folder) -> dict[str, float]:
    r"""The means of densities."""

    if (
        folder.manifest.verb not in ("likelihood", "discrete_likelihood")
        or folder.progress().aside
    ):
        return {}
    return {f"{name}, mean": float(folder.tensor(name).nanmean()) for name in ("nats", "total")}
