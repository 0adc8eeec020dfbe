r"""Data of different sizes in one batch: a mask says which entries exist.

The state of an entry that does not exist is 0. Its estimate is that of independent normal data with the variance
:math:`c^2` of the model's data, which is 0, too, while its derivative is that of the Gaussian companion of
densities. So it adds neither noise nor error to a density, and its part, :math:`\mathcal{N}(0; 0, c^2 + s^2)` at
the noise level s, is known.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array, as_tensor
from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from .conditions import Bound
from .forms import data_form
from .scale import scale_of
from .score_model import Given, ScoreModel
from .spoken import log_volume


@checked
class Masked(ScoreModel):
    r"""Creates a model of data of which some entries do not exist, such as padding.

    Entries where the mask is False are 0 from noise to data; for a model with a transform, they are the data of
    this state, such as the mean. They get no noise, and count nothing in densities, their dimensions, and the
    errors of adaptive steps.

    Arguments:
        model: The model. It gets the mask as the condition `mask`, if it takes one.
        mask: True or 1 where an entry exists, with shape (B, \*), or (1, \*) for all samples.

    Raises:
        ValueError, TypeError: If the mask holds other values, or a sample has no entry.

    Examples:
        >>> short = ss.Masked(model, torch.tensor([[True, True], [True, False]]))
        >>> s = ss.sample(short, 2)
        >>> float(s.x[1, 1])
        0.0
        >>> l = ss.log_likelihood(short, torch.zeros(2, 2))
        >>> [round(value, 2) for value in l.nats.tolist()]  # of two entries, and of one
        [-0.45, -0.23]
    """

    by_sample = ("mask",)

    def __init__(self, model: ScoreModel, mask: Array) -> None:
        super().__init__()
        model.process.bare_log_scales(torch.tensor(model.process.t_max, dtype=torch.float64))
        for module in model.modules():
            rule: Any = getattr(module, "rule", None)
            if getattr(rule, "pools", False):
                raise ValueError(_counts(f"the guidance {rule.words}"))
        self.resemble(model)
        self.mask, self.masked, self.scale = _checked(mask), True, scale_of(model)
        if model.moments is not None:  # which mix entries
            self.data_scale, self.finest, self.moments = self.scale, model.finest, None
        self.model = Given(model, {"mask": self.mask}) if "mask" in model.conditions else model
        self.conditions = tuple(name for name in model.conditions if name != "mask")

    def __repr__(self) -> str:
        return f"Masked({self.model!r}, mask of shape {tuple(self.mask.shape)})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.in_form(data_form, x, t, condition)

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.kept(self.model.raw(self.kept(x), t, **condition))

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        fields = self.model.combine(times, a, b, scale, x, **condition)
        return self.padded(fields, times, a, b, scale, x)

    def padded(
        self,
        fields: Sequence[StateField],
        times: Tensor,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        x: Tensor,
    ) -> Sequence[StateField]:
        r"""Returns the fields of :meth:`combine` with those of independent normal data where there is none."""

        alpha, sigma = self.process.bare_scales(times)
        variance = self.scale**2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)

        def bind(field: StateField, padding: Scalar) -> StateField:
            return lambda X: torch.where(self.mask.to(X.device), field(self.kept(X)), padding * X)

        paddings = scalars((a + b * gain) * scale, x)
        return [bind(*column) for column in zip(fields, paddings, strict=True)]

    def take_condition(self, name: str, value: object) -> Bound:
        return self.model.take_condition(name, value)

    def check_condition(self, name: str, value: Tensor) -> None:
        self.model.check_condition(name, value)

    def kept(self, x: Tensor) -> Tensor:
        r"""Returns states with 0 in the entries that do not exist."""

        mask = self.mask.to(x.device)
        if mask.shape[1:] != x.shape[1:] or len(mask) not in (1, len(x)):
            raise ValueError(
                f"mask must have shape {tuple(x.shape)}, or the same with leading size 1, but has "
                f"{tuple(mask.shape)}."
            )
        return torch.where(mask, x, 0)

    def absent(self, x: Tensor) -> Tensor:
        r"""Returns the number of entries of each state that do not exist, with shape (B,)."""

        return (~self.mask).flatten(1).sum(1).expand(len(x)).to(x.device)


def masked_of(model: ScoreModel) -> Masked | None:
    r"""Returns the masked model inside a model, if there is one.

    Raises:
        ValueError: If it has several with different masks.
    """

    if not model.masked:
        return None
    first, *others = (module for module in model.modules() if isinstance(module, Masked))
    for other in others:
        if not torch.equal(first.mask, other.mask):
            raise ValueError("the models that guidance combines must have the same mask.")
    return first


def refuse_mask(model: ScoreModel, use: str, instead: str = "") -> None:
    r"""Refuses a masked model for a use in which entries that do not exist would count."""

    if model.masked:
        raise ValueError(_counts(use, instead))


def _counts(use: str, instead: str = "") -> str:
    return (
        f"{use} would count the entries that do not exist, so it takes no masked model; use "
        f"{instead}samples of one size without padding."
    )


def kept_of(model: ScoreModel, x: Tensor) -> Tensor:
    r"""Returns states with 0 in the entries that do not exist, if some do not."""

    part = masked_of(model)
    return x if part is None else part.kept(x)


def share_of(model: ScoreModel) -> Tensor | None:
    r"""Returns the fraction of the entries that exist, with shape (B,) or (1,), or `None` if all do."""

    part = masked_of(model)
    return None if part is None else part.mask.flatten(1).double().mean(1)


def entries_of(model: ScoreModel, x: Tensor) -> Tensor | None:
    r"""Returns the number of entries of each state that exist, with shape (B,), or `None` if all do."""

    part = masked_of(model)
    return None if part is None else x[0].numel() - part.absent(x)


def log_units(model: ScoreModel, x: Tensor, level: float) -> float | Tensor:
    r"""Returns what the log-density of states has too much for that of the user's data, with shape () or (B,).

    This is the volume of data per volume of states, and the density of the entries that do not exist.

    Arguments:
        model: The model.
        x: States, with shape (B, \*).
        level: The noise level of the state :math:`x / \alpha`.
    """

    part = masked_of(model)
    if part is None:
        return log_volume(model, x)
    noise = -part.absent(x).double() / 2 * math.log(2 * math.pi * (part.scale**2 + level**2))
    if model.transform is None:
        return noise
    volumes = model.transform.log_volumes(x.shape[1:]).to(x.device)
    return noise + torch.where(part.mask.to(x.device), volumes, 0).flatten(1).sum(1)


def _checked(mask: object) -> Tensor:
    known = as_tensor("mask", mask)
    if known.ndim < 2 or not bool(((known == 0) | (known == 1)).all()):
        raise ValueError(
            "mask must be True or 1 where an entry exists and False or 0 elsewhere, with shape (B, *), but has "
            f"shape {tuple(known.shape)} and values from {known.min()} to {known.max()}."
        )
    empty = (~known.bool().flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            f"mask must leave an entry of each sample, but rows {empty[:8]} have none."
        )
    return known.bool()
