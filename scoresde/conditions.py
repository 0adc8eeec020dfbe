r"""Conditions: bound to a model, checked once."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from solvers.problem import StateField

from .models import ScoreModel


class Given(ScoreModel):
    r"""Creates the model of which some conditions are bound.

    Arguments:
        model: The model.
        bound: The conditions, each with leading size B or 1.
    """

    def __init__(self, model: ScoreModel, bound: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model, self.bound = model, dict(bound)
        self.resemble(model)
        self.conditions = tuple(name for name in model.conditions if name not in bound)
        self.bound_names = (*model.bound_names, *bound)

    def __repr__(self) -> str:
        return f"{self.model!r}.given({', '.join(self.bound)})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.denoise(x, t, **self._rows_of(x), **condition)

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.raw(x, t, **self._rows_of(x), **condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.score(x, t, **self._rows_of(x), **condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        return self.model.combine(times, a, b, scale, x, **self._rows_of(x), **condition)

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.bound

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return {name: _bound(part, self.bound) for name, part in self.model.parts.items()}

    def check_condition(self, name: str, value: Tensor) -> None:
        self.model.check_condition(name, value)

    def rows(self, index: Tensor) -> ScoreModel:
        return Given(self.model.rows(index), rows_of(self.bound, index))

    def _rows_of(self, x: Tensor) -> dict[str, Tensor]:
        for name, value in self.bound.items():
            if len(value) not in (1, len(x)):
                raise ValueError(
                    f"{name} must have leading size {len(x)} or 1, but has {len(value)}."
                )
        return {
            name: value.to(x.device).expand(len(x), *value.shape[1:])
            for name, value in self.bound.items()
        }


def _bound(model: ScoreModel, bound: Mapping[str, Tensor]) -> ScoreModel:
    mine = {name: value for name, value in bound.items() if name in model.conditions}
    return Given(model, mine) if mine else model


def rows_of(condition: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    r"""Returns conditions for some rows; those of leading size 1 are shared."""

    return {
        name: value if len(value) == 1 else value[index.to(value.device)]
        for name, value in condition.items()
    }


def check_conditions(
    model: ScoreModel,
    condition: Mapping[str, object],
    batch: int | None,
    options: Iterable[str] = (),
) -> dict[str, Tensor]:
    r"""Returns the conditions as tensors.

    Arguments:
        model: The model that gets them.
        condition: The conditions: tensors with leading size B or 1, or numbers.
        batch: The size B, if known.
        options: The names of options, which a mistyped one may have meant.

    Raises:
        TypeError: If the model does not take a condition of this name, or it is not a tensor.
        ValueError: If a leading size is neither B nor 1, or a value is not finite.
    """

    checked = {}
    for name, value in condition.items():
        if name in model.bound_names:
            raise TypeError(f"{name}= is bound to the model already; leave it out.")
        if name not in model.conditions:
            near = difflib.get_close_matches(name, [*model.conditions, *options], n=1)
            takes = ", ".join(model.conditions) or "none"
            hint = f"did you mean {near[0]}=? " if near else ""
            raise TypeError(f"{name}= is neither an option nor a condition; {hint}the model takes the "
                            f"conditions: {takes}.")  # fmt: skip
        if not isinstance(value, (Tensor, int, float)):
            raise TypeError(f"{name} must be a tensor or a number, not {type(value).__name__}.")
        tensor = torch.as_tensor(value)
        tensor = tensor[None] if tensor.ndim == 0 else tensor
        if batch is not None and len(tensor) not in (1, batch):
            raise ValueError(
                f"{name} must have leading size {batch} or 1, but has shape {tuple(tensor.shape)}."
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be finite, but has NaN or infinite entries.")
        model.check_condition(name, tensor)
        checked[name] = tensor
    return checked
