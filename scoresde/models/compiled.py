r"""Networks that torch.compile wraps."""

from typing import TypeVar, cast

N = TypeVar("N")
WRAPPED = "_orig_mod"  # the network inside the wrapper, also in the names of weights


def as_written(network: N) -> N:
    r"""Returns the network inside the wrapper of torch.compile, or the network itself."""

    return cast(N, getattr(network, WRAPPED, network))


def name_as_written(name: str) -> str:
    r"""Returns the name of a weight in the network as it was written, also if only blocks of it are compiled."""

    return ".".join(part for part in name.split(".") if part != WRAPPED)
