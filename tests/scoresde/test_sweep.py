r"""Every argument of every public function, replaced by what it cannot be: one sentence of ours, or taken.

The sentence names the argument, and is raised by a line of these packages, not by one of torch, NumPy or Python.
"""

import inspect
import linecache
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import scoresde as ss
import solvers
from scoresde import (
    autoencoders,
    chains,
    editing,
    geometry,
    guidance,
    inference,
    jobs,
    losses,
    metrics,
    plots,
)

from .calls import CALLS, ODD, Call

ROOT = str(Path(ss.__file__).parent.parent)
REFUSED = (
    ValueError,
    TypeError,
    IndexError,
    ImportError,
    OSError,
    solvers.SolverError,
    ss.training.TrainingError,
)
QUICK = ("None", "sparse", "2**70")
SLOW = (
    "compare",
    "log_likelihood",
    "log_likelihood, target",
    "reconstruct",
    "tune",
    "views",
    "geometry",
    "film",
    "c2st",
    "load",
    "save",
    "train",
    "discrete_log_likelihood",
)
OF_FILES = {"check_gif", "check_picture"}  # which programs ask before the work
# what some machines hold in memory, what asks for the time it takes, and what other arguments do not go with
TAKEN = {
    ("shape", "10**9"),
    ("count", "10**9"),
    ("solvers", "None"),
    ("solver", "None"),
    ("learned", "a bool"),
    ("compile", "a bool"),  # which takes a minute
    ("target", "a bool"),
}

# what sentences say of arguments that are wrong together with others, or hold what another function asks for
ALIASES = {
    "index": ("rows",),
    "alpha": ("CustomProcess", "SNR"),
    "sigma": ("CustomProcess", "SNR"),
    "covariance": ("covariances",),
    "means": ("stds",),
    "mean": ("basis",),
    "f": ("alpha",),
    "g": ("LinearProcess",),
    "importance": ("draws",),
    "target": ("conditions",),
    "groups": ("group",),
    "levels": ("bins",),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Runs where files may be written."""

    monkeypatch.chdir(tmp_path)


def complaint(call: Call, name: str, value: object) -> str | None:
    r"""What is wrong with how a call of an odd argument ends, or `None`."""

    function, arguments = call
    try:
        function(**{**arguments, name: value})
    except REFUSED as error:
        frame: Any = error.__traceback__
        while frame.tb_next is not None:
            frame = frame.tb_next
        file, line = frame.tb_frame.f_code.co_filename, frame.tb_lineno
        words = f"{type(error).__name__}: {str(error)[:160]} ({file[-40:]}:{line})"
        if not file.startswith((f"{ROOT}/scoresde/", f"{ROOT}/solvers/")):
            return f"words of others: {words}"
        if not re.match(r"\s*raise\b", linecache.getline(file, line)):
            return f"words of others: {words}"
        if isinstance(
            error, solvers.SolverError | ss.training.TrainingError
        ):  # of a run, which names samples and times
            return None
        return None if is_named(name, value, str(error)) else f"unnamed: {words}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:160]}"
    return None


def is_named(name: str, value: object, sentence: str) -> bool:
    r"""Whether a sentence names an argument, by its name or, of files and names, by its value."""

    words = re.split(r"\W+", sentence)
    if name in ("file", "name") and str(value) in sentence:
        return True
    return any(word in words for word in (name, *ALIASES.get(name, ())))


def complaints(label: str, kinds: Any) -> list[str]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in CALLS[label][1]:
            for kind in kinds:
                wrong = None if (name, kind) in TAKEN else complaint(CALLS[label], name, ODD[kind])
                found += [] if wrong is None else [f"{name} = {kind}: {wrong}"]
    return found


def test_the_table_has_every_public_function() -> None:
    known = {getattr(call, "__qualname__", type(call).__name__) for call, _ in CALLS.values()}
    measures = [
        getattr(metrics, name) for name in ("fid", "kid", "get", "with_error", "floor", "nearest")
    ]
    measures += metrics.DISTANCES.values()
    spaces = (
        ss,
        autoencoders,
        chains,
        guidance,
        inference,
        jobs,
        losses,
        losses.levels,
        plots,
        editing,
        geometry,
        ss.symbols,
        ss.training,
    )
    for module in spaces:
        measures += [getattr(module, name) for name in module.__all__]
    missing = {one.__qualname__ for one in measures if inspect.isfunction(one)} - known
    assert missing <= OF_FILES


@pytest.mark.slow
@pytest.mark.parametrize("label", CALLS)
def test_valid_calls_are_valid(label: str) -> None:
    function, arguments = CALLS[label]
    if label in ("load_latents", "load_solution", "Plan.load", "Comparison.load"):
        with pytest.raises(OSError, match="never"):  # there is no such file
            function(**arguments)
    else:
        function(**arguments)


@pytest.mark.parametrize("label", [label for label in CALLS if label not in SLOW])
def test_few_odd_things_bring_no_words_of_others(label: str) -> None:
    assert not complaints(label, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("label", CALLS)
def test_no_argument_brings_words_of_others(label: str) -> None:
    assert not complaints(label, ODD)
