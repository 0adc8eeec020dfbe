r"""Explanations of common network errors, with cures."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .closures import held_by

MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)")
SHAPES = re.compile(r"shape|size|dimension|broadcast|batch|out of (?:range|bounds)", re.IGNORECASE)
NUMPY = (
    "call numpy()",
    "convert to numpy",
    "doesn't have storage",
    "__array__",
    "numpy.ndarray",
    "np.ndarray",
)
BATCH = (
    "it may hold a fixed batch, as in lambda x, t: network(x, t, labels); runs ask for some rows of a batch, "
    "so pass what belongs to samples as a condition: NetworkScore(..., conditions=['labels']), and labels= to "
    "the call"
)


class Asked(NamedTuple):
    r"""How a network was called.

    Arguments:
        network: The network.
        declared: The conditions that the model declares.
        x: The state, with shape (B, *).
        condition: The conditions that were passed.
        rows: The rows of an earlier call that succeeded, if any.
    """

    network: Callable[..., object]
    declared: Sequence[str]
    x: Tensor
    condition: Mapping[str, Tensor]
    rows: int | None


def check_answer(F: object, shape: tuple[int, ...]) -> None:
    r"""Refuses the output of a network unless it holds floating-point numbers in the given shape."""

    if not isinstance(F, Tensor):
        hint = "; take the tensor out, as in lambda x, t: network(x, t)[0]"
        hint = "; wrap it by torch.from_numpy" if type(F).__module__ == "numpy" else hint
        raise ValueError(
            f"the network must return the shape of its input, {tuple(shape)}, but returned "
            f"{type(F).__name__}{hint}."
        )
    if F.shape != shape:
        hint = f"; {BATCH}" if F.shape[1:] == shape[1:] and F.ndim else ""
        raise ValueError(
            f"the network must return the shape of its input, {tuple(shape)}, but returned "
            f"{tuple(F.shape)}{hint}."
        )
    if not F.is_floating_point():
        raise TypeError(f"the network must return floating-point numbers, not {F.dtype}.")


def explained(error: Exception, asked: Asked) -> Exception | None:
    r"""Returns an error that names cause and cure, or `None` if the network's own error is clear enough."""

    text = str(error)
    missing = MISSING.search(text)
    if missing and isinstance(error, TypeError):
        return TypeError(_missing(re.findall(r"'(\w+)'", missing[1]), asked))
    free = [name for name in asked.declared if name not in asked.condition]
    if free and "NoneType" in text:
        return TypeError(_missing(free, asked))
    if any(word in text for word in NUMPY):
        return ValueError(
            "the network leaves torch, as those of numpy or ONNX do, so nothing can be differentiated: use it for "
            f"samples and ss.elbo, without grad=. torch says: {text.splitlines()[0][:200]}"
        )
    if asked.x.is_meta or "meta tensor" in text or "device meta" in text:
        return ValueError(
            "weights of the network are on the device 'meta', which holds no numbers: they are offloaded or were "
            "never loaded. Load them, or keep the hooks that bring them back and pass device= where they compute."
        )
    if SHAPES.search(text) and not isinstance(error, TypeError) and _other_batch(asked):
        rows = f", though not for {asked.rows}" if asked.rows not in (None, len(asked.x)) else ""
        return ValueError(
            f"the network fails for {len(asked.x)} rows{rows}: {BATCH}. It says: {text.splitlines()[0][:200]}"
        )
    return None


def _missing(names: Sequence[str], asked: Asked) -> str:
    words = " and ".join(f"{name}=" for name in names)
    undeclared = [name for name in names if name not in asked.declared]
    declare = (
        f"declare it by NetworkScore(..., conditions={undeclared!r}) and " if undeclared else ""
    )
    first = names[0] if names else "label"
    return (
        f"the network needs {words}, which is not bound: {declare}pass {words} to the call, or bind it by "
        f"model.given({first}=...). Classifier-free guidance calls the network without conditions for the "
        f"unconditional prediction: say what stands for none by negative={{{first!r}: ...}}, or give the "
        "network a default."
    )


def _other_batch(asked: Asked) -> bool:
    r"""Whether the number of rows differs from an earlier one, or from that of a tensor the network holds."""

    if asked.rows not in (None, len(asked.x)):
        return True
    sizes = [len(one) for one in _held(asked.network) if isinstance(one, Tensor) and one.ndim]
    return any(size not in (1, len(asked.x)) for size in sizes)


def _held(network: Callable[..., object]) -> Iterator[object]:
    r"""What a function holds, or the functions and dictionaries that a module is made of, but no weights."""

    parts: list[object] = [network]
    if isinstance(network, nn.Module):
        parts = [value for name, value in vars(network).items() if not name.startswith("_")]
    for part in parts:
        yield from held_by(part)
