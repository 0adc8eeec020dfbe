r"""The data of a training, checked: what it is, what is held out, and how its batches become continuous."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from solvers.doors.values import Array, as_tensor
from solvers.noise.brownian import keyed_uniform

from ..doors.arrays import open_arrays
from ..doors.data import as_data, check_batch_shape, check_rows_finite
from ..likelihood.bits import bin_width, on_levels
from ..models.transforms import Transform
from . import draws
from .batches import PARTNER, Batch, InMemory, OfDataset, Source, Stream
from .images import read_images

Given: TypeAlias = Array | Mapping[str, object] | str | Path | Dataset | DataLoader  # type: ignore[type-arg]
LEAST = 8  # samples that are held out, of which a check needs as many
MEASURED = 4096  # samples of a dataset, of which its moments are taken
BYTES = 256
ROWS = re.compile(r"rows \[([\d, ]+)\]")  # of a batch, in an error


@dataclass(frozen=True)
class Form:
    r"""What the numbers of some data are.

    Arguments:
        bins: The number of levels of data on levels, or `None` for continuous data.
        low: The lowest value, or that of the lowest level.
        high: The highest value, or that of the highest level.
        transform: The map to the states of a model, if there is one.
    """

    bins: int | None = None
    low: float | None = None
    high: float | None = None
    transform: Transform | None = None

    def __post_init__(self) -> None:
        low, high = self.ends
        if not low < high and None not in (self.low, self.high):
            raise ValueError(f"low must be below high, but they are {low:g} and {high:g}.")

    @property
    def ends(self) -> tuple[float, float]:
        r"""The values of the lowest and the highest level."""

        return (-1.0 if self.low is None else self.low), (1.0 if self.high is None else self.high)

    def states(self, name: str, x: Tensor) -> Tensor:
        r"""Returns data as states, refused if it is not what it is said to be."""

        if self.bins is not None:
            if self.transform is not None:
                raise ValueError(
                    f"{name} on levels (bins={self.bins}) has no noise yet that a model with a transform could be "
                    "trained on; pass ss.dequantize(x, levels=...) without bins=."
                )
            low, high = self.ends
            return on_levels(x, self.bins, low, high, name, "bins")
        if not x.is_floating_point() and not self._takes(x):
            raise TypeError(
                f"{name} must hold floating-point numbers, but holds {x.dtype}; for data on levels, pass bins=, "
                "the number of its levels, as 256 for bytes; otherwise scale it to about [-1, 1]."
            )
        check_batch_shape(name, x)
        if x.is_floating_point():
            check_rows_finite(name, x)
            self._check_range(name, x)
        if self.transform is not None:
            x = self.transform.held(name, x)
            check_batch_shape(name, x)
        check_rows_finite(name, x)
        return x

    def _takes(self, x: Tensor) -> bool:
        r"""Whether the transform takes numbers that are not real."""

        form = self.transform
        return form is not None and (x.is_complex() or (form.whole and x.dtype != torch.bool))

    def partner(self, z: object) -> Tensor:
        r"""Returns the other halves of pairs as states."""

        return as_data(PARTNER, z if self.transform is None else self.transform.inside(PARTNER, z))

    def noisy(self, x: Tensor, place: Tensor, seed: int, step: int) -> Tensor:
        r"""Returns data on levels with uniform noise, which fills its bins."""

        if self.bins is None:
            return x
        low, high = self.ends
        key, width = draws.word(seed, step), bin_width(self.bins, low, high)
        u = keyed_uniform(key, place.to(x.device), draws.DEQUANTIZED, 0, x[0].numel())
        return x + width * (u.reshape(x.shape) - 0.5).to(x)

    def _check_range(self, name: str, x: Tensor) -> None:
        out = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        if self.low is not None:
            out |= x.flatten(1).amin(1) < self.low
        if self.high is not None:
            out |= x.flatten(1).amax(1) > self.high
        if bool(out.any()):
            raise ValueError(
                f"{name} must lie between low={_said(self.low)} and high={_said(self.high)}, but in rows "
                f"{out.nonzero()[:8, 0].tolist()} it does not, and reaches from {x.min():.4g} to {x.max():.4g}; "
                "scale the data, or state its range."
            )


def _said(end: float | None) -> str:
    return "no limit" if end is None else f"{end:g}"


def source_of(
    data: object, condition: Mapping[str, object], form: Form, name: str = "data"
) -> tuple[Source, Form, str]:
    r"""Returns training data with its form, and where it comes from in words.

    Arguments:
        data: The data.
        condition: The conditions of data in memory.
        form: What its numbers are said to be.
        name: The name of the argument.

    Raises:
        ValueError, TypeError: If it is no data, or not in the form that was stated.
    """

    if isinstance(data, str | Path):
        return _of_path(Path(data), condition, form, name)
    if isinstance(data, DataLoader | Dataset):
        if condition:
            raise ValueError(
                f"{next(iter(condition))}= has no effect on a dataset, whose samples carry their conditions, as "
                "(x, label) or a dictionary."
            )
        return _of_dataset(data), form, type(data).__name__
    named = dict(data) if isinstance(data, Mapping) else {"x": data}
    return InMemory(_held(_with(named, condition), form, name)), form, "memory"


def _of_path(
    path: Path, condition: Mapping[str, object], form: Form, name: str
) -> tuple[Source, Form, str]:
    if path.is_dir():
        images, labels, names = read_images(path)
        form = form if form.bins is not None else replace(form, bins=BYTES)
        named = {"x": images} if labels is None else {"x": images, "label": labels}
        words = f"images of {path.name}" + (f", labelled {', '.join(names)}" if names else "")
        return InMemory(_held(_with(named, condition), form, name)), form, words
    if path.suffix not in (".npz", ".npy"):
        raise ValueError(
            f"{name} must be an npz or npy file, or a folder of images, but is {str(path)!r}."
        )
    arrays = open_arrays(path)
    if "x" not in arrays:
        raise ValueError(f"{path} has no entry 'x', but: {', '.join(arrays)}.")
    return InMemory(_held(_with(arrays, condition), form, name)), form, path.name


def _with(named: Mapping[str, object], condition: Mapping[str, object]) -> dict[str, object]:
    r"""Data with its conditions, none of which is given twice."""

    for name in condition:
        if name in named:
            raise ValueError(
                f"{name} is in data already; leave out {name}=, or take it out of data."
            )
    return {**named, **condition}


def _held(named: Mapping[str, object], form: Form, name: str) -> Batch:
    r"""Data in memory, whose parts are all checked."""

    if "x" not in named:
        raise ValueError(f"{name} must have an entry 'x', but has: {', '.join(map(str, named))}.")
    parts = dict(named)
    x = _array(name, parts.pop("x"), form)
    z = parts.pop(PARTNER, None)
    condition = {key: as_tensor(key, value) for key, value in parts.items()}
    z = None if z is None else as_tensor(PARTNER, z)
    return checked_batch(Batch(x, z, condition), form, name)  # type: ignore[arg-type]


def _array(name: str, value: object, form: Form) -> Tensor:
    r"""Numbers as they are: lists have no dtype, so those of whole numbers are floating-point."""

    if form.transform is not None and isinstance(value, Tensor | np.ndarray):
        x = torch.as_tensor(value)
        if x.is_complex():
            return x
    x = as_tensor(name, value)
    if form.transform is not None and form.transform.whole:
        return x
    if not isinstance(value, Tensor | np.ndarray) and not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    return x


def _of_dataset(data: object) -> Source:
    inside = data.dataset if isinstance(data, DataLoader) else data
    if not isinstance(inside, IterableDataset):
        _check_sized(inside)
    if not isinstance(data, DataLoader):
        return Stream(DataLoader(data, batch_size=None)) if isinstance(data, IterableDataset) else (
            OfDataset(data)
        )  # fmt: skip
    if isinstance(data.dataset, IterableDataset):
        return Stream(data)
    loading = {name: getattr(data, name) for name in ("collate_fn", "num_workers", "pin_memory")}
    if data.num_workers:
        loading |= {n: getattr(data, n) for n in ("prefetch_factor", "multiprocessing_context")}
    return OfDataset(data.dataset, loading)


def _check_sized(dataset: object) -> None:
    try:
        count = len(dataset)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"data must have a length, but {type(dataset).__name__} has no __len__; add it, or make it an "
            "IterableDataset."
        ) from None
    if not count:
        raise ValueError(f"data must hold samples, but {type(dataset).__name__} has the length 0.")


def checked_batch(batch: Batch, form: Form, name: str = "data") -> Batch:
    r"""Returns samples, refused if they are not in the form that was stated.

    Conditions of one whole number for each sample come out in int64, which tables of labels are read by.
    """

    x, z, condition = form.states(name, batch.x.detach()), batch.z, {}
    if z is not None:
        z = form.partner(z).detach()
        if z.shape != x.shape:
            raise ValueError(
                f"z must have the shape of {name}, {tuple(x.shape)}, but has {tuple(z.shape)}."
            )
    for key, value in batch.condition.items():
        if value.ndim == 0 or len(value) != len(x):
            raise ValueError(
                f"{key} must have one entry for each of the {len(x)} samples, but has shape {tuple(value.shape)}."
            )
        if value.is_floating_point():
            check_rows_finite(key, value.reshape(len(value), -1))
        elif value.ndim == 1:
            value = value.long()
        condition[key] = value.detach()
    return Batch(x, z, condition)


def split(
    source: Source, validation: object, form: Form, seed: int
) -> tuple[Source, Batch | None]:
    r"""Returns the data to train on, and that which is held out.

    Arguments:
        source: The data.
        validation: The share that is held out, or held-out data itself.
        form: Its form.
        seed: The seed of the split.

    Raises:
        ValueError: If too little is left on either side.
    """

    if not isinstance(validation, int | float):
        held, _, _ = source_of(validation, {}, form, "validation")
        some = held.some(draws.chosen(seed, held.count or 1, draws.SPLIT)[:MEASURED].sort().values)
        known = isinstance(held, InMemory)  # and so checked already
        return source, some if known else checked_batch(some, form, "validation")
    if not 0 <= validation < 1:
        raise ValueError(
            "validation must be the share of the data that is held out, at least 0 and below 1, but is "
            f"{validation:g}."
        )
    if not validation:
        return source, None
    if source.count is None:
        source.part(torch.arange(0))  # which says why not
    assert source.count is not None
    count = round(validation * source.count)
    if count < LEAST or source.count - count < 2:
        raise ValueError(
            f"validation={validation:g} holds out {count} of the {source.count} samples, but {LEAST} must be held "
            "out and 2 be left; pass more data, another share, or validation=0."
        )
    order = draws.chosen(seed, source.count, draws.SPLIT)
    out = source.part(order[: min(count, MEASURED)].sort().values)
    rest = source.part(order[count:].sort().values)
    index = torch.arange(min(count, MEASURED))
    some = out.some(index)
    if isinstance(source, InMemory):
        return rest, some
    return rest, named_batch(some, form, out.numbers(index))


def sample_of(source: Source, form: Form, batch_size: int) -> Batch:
    r"""Returns samples of which facts about the data are taken: all in memory, or some of a dataset."""

    if isinstance(source, InMemory):
        return source.held
    if source.count is None:
        return checked_batch(source.some(torch.arange(batch_size)), form)
    index = draws.chosen(0, source.count, draws.SPLIT)[:MEASURED].sort().values
    return named_batch(source.some(index), form, source.numbers(index))


def named_batch(batch: Batch, form: Form, samples: list[int] | None) -> Batch:
    r"""Returns a checked batch, whose errors name the samples in it."""

    try:
        return checked_batch(batch, form)
    except ValueError as error:
        if samples is None:
            raise
        raise ValueError(ROWS.sub(lambda found: _samples(found[1], samples), str(error))) from None


def _samples(rows: str, samples: list[int]) -> str:
    return f"samples {[samples[int(row)] for row in rows.split(',')]}"


def iterate(
    source: Source, index: Iterator[tuple[int, Tensor]], seed: int, form: Form
) -> Iterator[Batch]:
    r"""Returns the batches of steps, each checked unless it is of data that is checked already."""

    if isinstance(source, InMemory):
        yield from source.batches(index, seed)
        return
    index, named = itertools.tee(index)
    for (_, samples), batch in zip(named, source.batches(index, seed), strict=False):
        if source.count is not None and len(batch.x) != len(samples):
            raise ValueError(
                f"data must give one row for each of the {len(samples)} samples of a batch, but gives "
                f"{len(batch.x)}; check collate_fn."
            )
        yield named_batch(batch, form, source.numbers(samples))
