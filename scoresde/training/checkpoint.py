r"""The state of a training in a file, from which it resumes bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import Json, replacing


def save_state(
    file: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, object],
    others: Mapping[str, Tensor] = {},
) -> None:
    r"""Writes the tensors of modules and of an optimizer, others beside them, and plain facts."""

    tensors = {
        f"{prefix}.{name}": value
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    save_tensors(file, {**tensors, **others}, facts)


def load_state(
    file: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], Json]:
    r"""Restores what :func:`save_state` wrote, and returns all tensors and the facts."""

    tensors, facts = load_tensors(file)
    for prefix, module in modules.items():
        module.load_state_dict(under(prefix, tensors))
    state = optimizer.state_dict()
    for name, value in under("adam", tensors).items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
    return tensors, facts


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Returns the tensors whose names begin with a prefix, without it."""

    start = f"{prefix}."
    return {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}


def save_tensors(file: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    r"""Writes tensors and plain facts, whole or not at all."""

    plain = {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}
    with replacing(file) as part:
        save_file(plain, part, {name: json.dumps(value) for name, value in facts.items()})


def load_tensors(file: Path) -> tuple[dict[str, Tensor], Json]:
    r"""Returns what :func:`save_tensors` wrote."""

    facts = facts_of(file)
    with safe_open(file, "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, facts


def facts_of(file: Path) -> Json:
    r"""Returns the facts in a file without reading its tensors.

    Raises:
        ValueError: If it is damaged, or was written by something else.
    """

    try:
        with safe_open(file, "pt") as stored:
            return {name: json.loads(text) for name, text in (stored.metadata() or {}).items()}
    except (SafetensorError, OSError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise ValueError(
            f"{file} is no checkpoint, or is damaged ({words}); remove it to begin anew."
        ) from None


def check_same(place: Path, known: Mapping[str, object], asked: Mapping[str, object]) -> None:
    r"""Refuses to go on with a training of other options than those that began it.

    Arguments:
        place: The folder or file that holds the training.
        known: Its options.
        asked: The options that are asked for now.
    """

    for name in {**known, **asked}:
        before, now = known.get(name), json.loads(json.dumps(asked.get(name)))
        if before != now:
            raise ValueError(
                f"{place} holds a training with {name}={before}, which cannot go on with {name}={now}; pass what "
                "began it, or another place for this one."
            )
