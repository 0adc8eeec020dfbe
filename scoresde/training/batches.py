r"""Training data that is asked for batches: in memory, in a dataset, or as a stream."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from .draws import restored, word

PARTNER = "z"  # the name of the other half of paired data


class Batch(NamedTuple):
    r"""Some samples.

    Arguments:
        x: The data, with shape (b, *).
        z: The other half of paired data, with shape (b, *).
        condition: The conditions, each with leading size b.
    """

    x: Tensor
    z: Tensor | None
    condition: dict[str, Tensor]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        r"""Returns the batch on a device, with real numbers in a dtype."""

        def moved(value: Tensor) -> Tensor:
            return value.to(device, dtype if value.is_floating_point() else None)

        condition = {name: moved(value) for name, value in self.condition.items()}
        z = None if self.z is None else moved(self.z)
        return Batch(moved(self.x), z, condition)

    def rows(self, index: Tensor) -> "Batch":
        r"""Returns some rows."""

        condition = {name: value[index] for name, value in self.condition.items()}
        return Batch(self.x[index], None if self.z is None else self.z[index], condition)


class Source(ABC):
    r"""Abstract training data.

    Attributes:
        count: The number of samples, or `None` for a stream.
    """

    count: int | None

    @abstractmethod
    def batches(self, index: Iterable[tuple[int, Tensor]], seed: int) -> Iterator[Batch]:
        r"""Returns the batches of steps.

        Arguments:
            index: The number of each step, and the samples in it.
            seed: The seed of what the data draws itself, such as augmentations.
        """

    @abstractmethod
    def some(self, index: Tensor) -> Batch:
        r"""Returns some samples."""

    @abstractmethod
    def part(self, index: Tensor) -> "Source":
        r"""Returns the data of some samples alone."""


@dataclass(frozen=True)
class InMemory(Source):
    r"""Training data in memory."""

    held: Batch

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.held.x)

    def batches(self, index: Iterable[tuple[int, Tensor]], seed: int) -> Iterator[Batch]:
        return (self.held.rows(samples) for _, samples in index)

    def some(self, index: Tensor) -> Batch:
        return self.held.rows(index)

    def part(self, index: Tensor) -> "InMemory":
        return InMemory(self.held.rows(index))


class Keyed(Dataset[Any]):
    r"""A dataset whose random numbers depend on the sample and the step alone, whatever process loads it."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, place: tuple[int, int]) -> Any:
        step, index = place
        key = word(self.seed, step, index)
        state, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002, as datasets use
        try:
            with restored(torch.device("cpu")):
                torch.default_generator.manual_seed(key)
                random.seed(key)
                np.random.seed(key % 2**32)  # noqa: NPY002
                return self.dataset[index]
        finally:
            random.setstate(state)
            np.random.set_state(numbers)  # noqa: NPY002


@dataclass(frozen=True)
class OfDataset(Source):
    r"""Training data in a dataset.

    Arguments:
        dataset: The dataset, with a length.
        loading: Options of the loader: how samples become batches, and in how many processes.
    """

    dataset: Any
    loading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.dataset)

    def batches(self, index: Iterable[tuple[int, Tensor]], seed: int) -> Iterator[Batch]:
        asked: Any = ([(step, i) for i in samples.tolist()] for step, samples in index)
        draw = torch.Generator()  # of seeds that nothing depends on
        keyed = Keyed(self.dataset, seed)
        return map(
            as_batch, DataLoader(keyed, batch_sampler=asked, generator=draw, **self.loading)
        )

    def some(self, index: Tensor) -> Batch:
        [batch] = OfDataset(self.dataset, {"collate_fn": self.loading.get("collate_fn")}).batches(
            [(-1, index)], 0
        )
        return batch

    def part(self, index: Tensor) -> "OfDataset":
        return OfDataset(Subset(self.dataset, index.tolist()), self.loading)


@dataclass(frozen=True)
class Stream(Source):
    r"""Training data that comes in batches of its own, in one order."""

    loader: Iterable[Any]
    count: int | None = None

    def batches(self, index: Iterable[tuple[int, Tensor]], seed: int) -> Iterator[Batch]:
        found = self._endless()
        asked = iter(index)
        first, _ = next(asked, (0, None))
        for _ in range(first):  # which an earlier run has trained on
            next(found)
        yield next(found)
        for _ in asked:
            yield next(found)

    def _endless(self) -> Iterator[Batch]:
        while True:
            some = False
            for value in self.loader:
                some = True
                yield as_batch(value)
            if not some:
                raise ValueError(
                    "data is a stream that has no more batches; pass one that can start anew."
                )

    def some(self, index: Tensor) -> Batch:
        return next(self._endless())

    def part(self, index: Tensor) -> "Source":
        raise ValueError(
            "data is a stream, of which no samples can be held out; pass them as validation=, or validation=0."
        )


def as_batch(value: object) -> Batch:
    r"""Returns a batch from what a loader gives: x, (x, label), or a dictionary of x, z and conditions."""

    if isinstance(value, Mapping):
        named = {str(name): _tensor(f"data[{name!r}]", part) for name, part in value.items()}
        if "x" not in named:
            raise ValueError(f"data must have an entry 'x', but has: {', '.join(named)}.")
        return Batch(named.pop("x"), named.pop(PARTNER, None), named)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not 1 <= len(value) <= 2:
            raise ValueError(
                f"data must give x, (x, label), or a dictionary with names, but gives {len(value)} values."
            )
        names = ("x", "label")[: len(value)]
        return as_batch(dict(zip(names, value, strict=True)))
    return as_batch({"x": value})


def _tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a tensor in each batch, but is a {type(value).__name__}.")
    return torch.as_tensor(value)
