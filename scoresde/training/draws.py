r"""The random numbers of training: functions of the seed, the step and the place in the batch.

So a resumed run draws what an uninterrupted one does, and devices that share a batch draw what one device does.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from solvers.noise.brownian import keyed_normal, keyed_uniform

ORDER, STRATA, SHARES, NOISE, DROPPED, DEQUANTIZED, SPLIT, HELD = range(301, 309)  # the streams
WORD = 2**63


def rows_of_batch(size: int, rank: int = 0, world: int = 1) -> Tensor:
    r"""Returns the places in the batch that one of several devices works on."""

    return torch.arange(rank, size, world)


def shares(seed: int, step: int, size: int, place: Tensor) -> Tensor:
    r"""Returns stratified shares in (0, 1), one in each of `size` equal intervals, with shape (b,).

    .. math:: u_i = (\pi_i + U_i) / B

    The permutation :math:`\pi` is drawn anew in each step, so that the order of the samples does not matter.

    Arguments:
        seed: The seed.
        step: The number of the step.
        size: The size B of the whole batch.
        place: The places i, with shape (b,).
    """

    stratum = keyed_uniform(seed, torch.arange(size), STRATA, step, 1)[:, 0].argsort()[place]
    return (stratum + keyed_uniform(seed, place, SHARES, step, 1)[:, 0]) / size


def noise(seed: int, step: int, place: Tensor, like: Tensor, stream: int = NOISE) -> Tensor:
    r"""Returns standard noise for the rows of a batch, with the shape, dtype and device of `like`."""

    z = keyed_normal(seed, place.to(like.device), stream, step, like[0].numel())
    return z.to(like).reshape(like.shape)


def dropped(seed: int, step: int, place: Tensor, share: float) -> Tensor:
    r"""Returns which rows of a batch lose their conditions, with shape (b,)."""

    return keyed_uniform(seed, place, DROPPED, step, 1)[:, 0] < share


def indices(seed: int, step: int, size: int, place: Tensor, count: int) -> Tensor:
    r"""Returns the samples in a batch: each epoch goes through all of them in an order of its own.

    Arguments:
        seed: The seed.
        step: The number of the step.
        size: The size of the whole batch.
        place: The places in the batch, with shape (b,).
        count: The number of samples.
    """

    position = step * size + place
    epoch, found = position // count, torch.empty_like(position)
    for number in epoch.unique().tolist():
        mine = epoch == number
        found[mine] = order(seed, number, count)[position[mine] % count]
    return found


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> Tensor:
    r"""Returns a permutation of the samples."""

    return keyed_uniform(seed, torch.arange(count), ORDER, epoch, 1)[:, 0].argsort()


def chosen(seed: int, count: int, stream: int = SPLIT) -> Tensor:
    r"""Returns a permutation of the samples, of which the first are held out, or looked at."""

    return torch.randperm(count, generator=torch.Generator().manual_seed(word(seed, stream)))


def word(*of: object) -> int:
    r"""Returns a seed of 63 bits that depends on all arguments."""

    text = "/".join(map(str, of)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % WORD


def seed_global(device: torch.device, key: int) -> None:
    r"""Seeds the global generators of the CPU and of a device, which dropout draws from.

    `torch.manual_seed` also remembers each call for all devices that are not in use.
    """

    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        torch.cuda.manual_seed(key)


@contextmanager
def restored(device: torch.device) -> Iterator[None]:
    r"""Restores the global generators of torch after its block, in which each step seeds them for dropout."""

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
