r"""The state of a training in a file, from which it resumes bit for bit."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import Json, replacing
from .folder import written

DIGEST = "digest"  # of all else in a file, by which damage is found

DIGESTS = {
    "data": "on other data",
    "validation": "with other held-out data",
    "network": "of another network",
}  # what differs where a fact is a digest


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
    file: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    asked: Mapping[str, object],
    cure: str,
) -> tuple[dict[str, Tensor], Json]:
    r"""Restores what :func:`save_state` wrote, and returns all tensors and the facts.

    Arguments:
        file: The file.
        modules: The modules, by the prefixes of their tensors.
        optimizer: The optimizer.
        asked: The options that are asked for, which must be those of the fact "options".
        cure: Where others can be trained, for the error message.

    Raises:
        ValueError: If the file is damaged, or belongs to other options or to another network.
    """

    tensors, facts = load_tensors(file)
    check_same(file, facts.get("options", {}), asked, cure)
    state = optimizer.state_dict()
    try:
        for prefix, module in modules.items():
            module.load_state_dict(under(prefix, tensors))
        for name, value in under("adam", tensors).items():
            index, key = name.split(".", 1)
            state["state"].setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        words = " ".join(str(error).split())
        raise ValueError(
            f"{file} holds the training of another network ({words}); pass {cure}."
        ) from None
    return tensors, facts


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Returns the tensors whose names begin with a prefix, without it."""

    start = f"{prefix}."
    return {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}


def save_tensors(file: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    r"""Writes tensors and plain facts, whole or not at all."""

    plain = {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}
    said = {name: json.dumps(value) for name, value in facts.items()}
    with written(file), replacing(file) as part:
        save_file(plain, part, {**said, DIGEST: digest_of(plain, said)})


def load_tensors(file: Path) -> tuple[dict[str, Tensor], Json]:
    r"""Returns what :func:`save_tensors` wrote.

    Raises:
        ValueError: If it is damaged, or was written by something else.
    """

    try:
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            said = dict(stored.metadata() or {})
        if said.pop(DIGEST, None) != digest_of(tensors, said):
            raise ValueError("its digest is another")
        return tensors, {name: json.loads(text) for name, text in said.items()}
    except (SafetensorError, OSError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise ValueError(
            f"{file} is no file of a training, or is damaged ({words}); remove it to go on without."
        ) from None


def digest_of(tensors: Mapping[str, Tensor], said: Mapping[str, str] = {}) -> str:
    r"""Returns a digest of tensors on the CPU and of facts, with their names."""

    digest = hashlib.blake2b(json.dumps(sorted(said.items())).encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_same(
    where: Path, known: Mapping[str, object], asked: Mapping[str, object], cure: str
) -> None:
    r"""Refuses to go on with a training of other options than those that began it.

    Arguments:
        where: The folder or file.
        known: The options that began it.
        asked: Those that are asked for.
        cure: Where others can be trained, for the error message.
    """

    for name in {**known, **asked}:
        before, now = known.get(name), json.loads(json.dumps(asked.get(name)))
        if before != now:
            if name in DIGESTS:
                raise ValueError(
                    f"{where} holds a training {DIGESTS[name]} (digest {before}, not {now}); pass what began it, "
                    f"or {cure}."
                )
            raise ValueError(
                f"{where} holds a training with {name}={before}, which cannot go on with {name}={now}; pass "
                f"what began it, or {cure}."
            )
