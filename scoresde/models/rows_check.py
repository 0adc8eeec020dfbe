r"""A check, before a batch is split, that the rows of a model agree with the whole model.

A custom model may hold per-sample tensors without declaring them, for instance inside a function. Its rows, by
:meth:`scoresde.ScoreModel.rows`, must then hold theirs:

.. math:: D_{rows(i)}(x_i) = D(x)_i .

Candidates are found by size: tensors, other than weights and buffers, whose leading size is B and stays B after
rows have been selected. Since a candidate may be a table that happens to have B entries, the law itself is then
tested, at three noise levels, by calls that are not counted. Usually there are no candidates, and no calls.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from solvers.network_calls import uncounted
from solvers.noise.brownian import PROBES, keyed_normal

from ..processes.process import Process
from .by_sample import lists_in
from .closures import held_by
from .data_moments import Moments
from .derivative import coarsest_eps, where_noise_is_data
from .estimate import estimate
from .score_model import MACHINERY, ScoreModel
from .steady import LEAST, ULPS

LEVELS = (0.1, 1.0, 10.0)  # times the size of the data


def check_rows(model: ScoreModel, x: Tensor) -> None:
    r"""Refuses a model that would mix up samples if it were given a part of the batch.

    Arguments:
        model: The model, with its conditions bound.
        x: A state with shape (B, *), which sets shape, dtype and device.

    Raises:
        ValueError: If its rows disagree with the whole model, or an attribute named in `by_sample` has another
            size.
    """

    for part in model.modules():
        if isinstance(part, ScoreModel):
            _check_sizes(part, len(x))
    if len(x) < 2:
        return
    index = torch.arange(1, len(x))  # fewer rows, and none in its place
    found = list(dict.fromkeys(_unsaid(model.rows(index), len(x))))
    if found and not _rows_agree(model, x, index):
        name = type(model).__name__
        raise ValueError(
            f"{name} holds tensors that belong to samples ({', '.join(found)}), and would use those of "
            "other samples where rows are computed apart: with batch_size=, under tolerances or by "
            "weights. Name such tensors in the class, as by_sample = ('targets',); hold models as "
            "attributes, not inside functions; pass what functions need by name, as a condition; or "
            "define rows(self, index)."
        )


def _check_sizes(part: ScoreModel, batch: int) -> None:
    for name in part.by_sample:
        if not hasattr(part, name):
            raise ValueError(
                f"by_sample of {type(part).__name__} names {name!r}, but the model has no such attribute."
            )
        for found in lists_in(name, getattr(part, name)):
            raise ValueError(
                f"{found} is named in by_sample, so it must be a tensor; pass torch.as_tensor({found})."
            )
    for name, value in part.held.items():
        if len(value) not in (1, batch):
            raise ValueError(
                f"{name} must have leading size {batch} or 1, but has {tuple(value.shape)}."
            )


def _unsaid(model: ScoreModel, size: int) -> Iterator[str]:
    r"""The names of all tensors with the given leading size that a model reaches, except weights and buffers."""

    waiting: list[tuple[str, nn.Module]] = [("", model)]
    seen: set[object] = set()
    while waiting:
        path, module = waiting.pop()
        for name, value in _held(module, seen):
            for thing in held_by(value):
                if isinstance(thing, nn.Module):
                    waiting.append((f"{path}{name}.", thing))
                elif not isinstance(thing, nn.Parameter | nn.Buffer) and _has(thing, size):
                    yield f"{path}{name}"


def _held(module: nn.Module, seen: set[object]) -> Iterator[tuple[str, object]]:
    r"""The attributes of a module and its class, by name, unless they have been visited."""

    own = [] if id(module) in seen else [*vars(module).items(), *module._modules.items()]
    seen.add(id(module))
    for kind in type(module).__mro__:
        if kind in (ScoreModel, nn.Module):
            break
        own += [] if kind in seen else vars(kind).items()
        seen.add(kind)
    for name, value in own:
        if name not in MACHINERY and not isinstance(value, Process | Moments):
            yield name, value


def _has(value: Tensor | np.ndarray, size: int) -> bool:
    numbers = isinstance(value, Tensor) or value.dtype.kind in "iufb"
    return numbers and value.ndim > 0 and len(value) == size


def _rows_agree(model: ScoreModel, x: Tensor, index: Tensor) -> bool:
    r"""Whether the model for some rows agrees with the whole model on these rows."""

    part, number, here = (
        model.rows(index),
        torch.arange(len(x), device=x.device),
        index.to(x.device),
    )
    devices = [x.device] if x.device.type == "cuda" else []
    bound = max(LEAST, ULPS * coarsest_eps(model, x))
    with uncounted(), torch.no_grad(), torch.random.fork_rng(devices):
        for level in LEVELS:
            t, scale = where_noise_is_data(model, x, level * model.data_std)
            state = scale * keyed_normal(0, number, PROBES, 0, x[0].numel()).to(x).reshape(x.shape)
            wanted, again = (_answers(model, state, t) for _ in range(2))
            if any(_differ(a, w, bound) for a, w in zip(again, wanted, strict=True)):
                return True  # it is random, which other checks report
            try:
                found = _answers(part, state[here], t[index])
            except Exception:  # of tensors that do not fit, whatever its type
                return False
            if any(_differ(f, w[here], bound) for f, w in zip(found, wanted, strict=True)):
                return False
    return True


def _answers(model: ScoreModel, x: Tensor, t: Tensor) -> list[Tensor]:
    r"""The model's answers to solvers and to the last denoising."""

    if not model.process.has_scales:
        return [model.score(x, t)]
    asked = (
        t[None],
        torch.zeros_like(t)[None],
        torch.ones_like(t)[None],
        torch.ones_like(t)[None],
    )
    return [estimate(model, x, t), model.combine(*asked, x)[0](x)]


def _differ(found: Tensor, wanted: Tensor, bound: float) -> bool:
    if found.shape != wanted.shape:
        return True
    gap = (found - wanted).double().square().mean()
    return bool(gap > bound**2 * wanted.double().square().mean().clamp(min=1e-60))
