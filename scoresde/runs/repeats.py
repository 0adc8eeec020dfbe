r"""A memory of draws with the default seed in this process, to warn about repeated draws.

This is the only state that outlives a run, and it changes no result. The default seed is the same in every call,
so that results are reproducible. Without a warning, a loop would draw copies, and a second run over the same
times would get noise that is not independent of the first. Calls that pass a seed are not checked.
"""

import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from solvers import Solution
from solvers.noise.brownian import key_of_rows, keys_of_steps

from ..doors.warning import warn
from ..models.score_model import ScoreModel
from ..processes.process import Process
from .noise import noise_kind
from .settings import Settings

LIMIT, PASSES = 4096, 128  # how many calls and noisy runs are remembered
PLAIN = (bool, int, float, str, type(None))
WATCHING = ("callback", "progress")  # options that change nothing
_calls: dict[int, None] = {}
_passes: "deque[_Pass]" = deque(maxlen=PASSES)
_numbers: "weakref.WeakKeyDictionary[object, int]" = weakref.WeakKeyDictionary()
_next, _lock = count(), threading.Lock()


class _Pass(NamedTuple):
    r"""A noisy run with the default seed: its noise, start and result."""

    noise: tuple[str, int, str]
    ends: tuple[float, float]
    steps: frozenset[int]
    start: int
    states: frozenset[int]


def says_seed(options: Mapping[str, object]) -> bool:
    r"""Returns whether the user passed a seed."""

    return "seed" in options or options.get("seeds") is not None


def is_keyed(solution: Solution) -> bool:
    r"""Returns whether a run had noise that the user did not provide."""

    return solution.provenance["noise"] in ("increments", "path")


def warn_of_copies(verb: str, model: object, given: object, options: Mapping[str, object]) -> None:
    r"""Warns if a call without a seed equals an earlier one, so that it draws the same samples.

    Arguments:
        verb: The name of the function.
        model: The model or models.
        given: Its other argument: a shape, or data.
        options: The options.
    """

    if says_seed(options):
        return
    said = {name: value for name, value in options.items() if name not in WATCHING}
    call = hash((verb, _told(model), _told(given), _told(said)))
    if not _is_new(call):
        warn(
            f"this call of {verb} equals an earlier one, and its result does too, because seed=0 is the "
            "default: for other samples, pass first_index= (i * B in the i-th batch) or another seed=, "
            "or seed=None to draw one; for the same samples, pass seed=0."
        )


def warn_of_second_pass(
    z: Tensor, solution: Solution, settings: Settings, *, drawn: bool = False
) -> None:
    r"""Warns if a run without a seed covers times whose noise an earlier run from another start has used.

    A run from a state of an earlier one continues it, and a run from the same start is a comparison.

    Arguments:
        z: The start of the run, with shape (B, *).
        solution: Its solution.
        settings: Its options.
        drawn: Whether its start was drawn and not given, so that it cannot depend on earlier noise.
    """

    if not is_keyed(solution):
        return
    times = solution.times if solution.times.ndim == 1 else solution.times[:, 0]
    states = [solution.x[:1], *(() if solution.path is None else solution.path[:, :1])]
    here = _Pass(
        (noise_kind(settings), settings.first_index, solution.provenance["process"]),
        (float(times[0]), float(times[-1])),
        frozenset(keys_of_steps(times).tolist()),
        int(key_of_rows(z[:1])),
        frozenset(key_of_rows(torch.cat(states)).tolist()),
    )
    with _lock:
        earlier = list(_passes)
        _passes.append(here)
    if drawn or any(here.start in (other.start, *other.states) for other in earlier):
        return
    if any(_shares_noise(here, other) for other in earlier):
        warn(
            "an earlier run from another start used the same noise over these times, because seed=0 is "
            "the default, so the two results are not independent, and a state that the earlier run made "
            "is not independent of its noise: pass another seed=, or first_index= for other samples; to "
            "use the same noise, pass seed=0."
        )


def forget() -> None:
    r"""Forgets all calls."""

    with _lock:
        _calls.clear()
        _passes.clear()


def _shares_noise(here: _Pass, other: _Pass) -> bool:
    if here.noise != other.noise:
        return False
    if here.noise[0] == "path":
        return max(here.ends[1], other.ends[1]) < min(here.ends[0], other.ends[0])
    return not here.steps.isdisjoint(other.steps)


def _is_new(call: int) -> bool:
    with _lock:
        known = call in _calls
        _calls[call] = None
        while len(_calls) > LIMIT:
            del _calls[next(iter(_calls))]
    return not known


def _told(value: object) -> object:
    r"""A hashable key that identifies a value: by its content, or as an object."""

    if type(value) in PLAIN:
        return type(value), value
    if isinstance(value, ScoreModel | nn.ModuleList | nn.ModuleDict):
        own = {name: held for name, held in vars(value).items() if not name.startswith("_")}
        parts = [dict(f(recurse=False)) for f in (value.named_parameters, value.named_buffers)]
        children = dict(value.named_children())
        return type(value).__qualname__, _told(own), _told(parts), _told(children)
    if isinstance(value, nn.Module):  # its weights may be changed by training
        return _number(value), sum(weight._version for weight in value.parameters())
    if isinstance(value, Tensor) and not value.is_complex():
        return tuple(value.shape), int(key_of_rows(value.reshape(1, -1))) if value.numel() else 0
    if isinstance(value, Mapping):
        return tuple((name, _told(held)) for name, held in sorted(value.items()))
    if isinstance(value, Process) and value.key is not None:
        return type(value).__qualname__, value
    if is_dataclass(value) and not isinstance(value, type):  # as rules and solvers are
        return type(value).__qualname__, _told(
            {f.name: getattr(value, f.name) for f in fields(value)}
        )
    if isinstance(value, list | tuple):
        return tuple(map(_told, value))
    return _number(value) if callable(value) else repr(value)


def _number(value: object) -> object:
    r"""The number of an object, which is never reused when it is gone."""

    try:
        return _numbers.setdefault(value, next(_next))
    except TypeError:  # it can have no weak reference, or no hash
        return id(value)
