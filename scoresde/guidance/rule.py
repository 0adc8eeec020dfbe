r"""Guidance as a rule that combines the denoised data of several models into one.

A rule is a frozen dataclass, and its fields are its whole state. Tensors in them, also inside dictionaries and
lists, are per-sample values with leading size B or 1, unless their shape is (); numbers and functions are
settings.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain, count
from typing import ClassVar, Self

from torch import Tensor

from solvers.problem import StateField

from ..models.by_sample import changed, of_rows, tensors_in
from ..models.score_model import ScoreModel
from .asked import Asked, Noisy, Place
from .words import told, words_of


@dataclass(frozen=True)
class Guidance(ABC):
    r"""Abstract guidance, which combines several models into one, separately for each row.

    Attributes:
        roles: The names of the first models in plots. Guidance starts from models with the names "conditional",
            "strong" or "model", and leads away from "unconditional", "negative", "weak" or "other".
        others: The name of further models, which are numbered.
        smooth: Whether its results can be differentiated.
        on_scores: Whether it also combines scores, for processes without scales.
        changes: Whether the result is no longer the score of noisy data, even if those of its models are.
    """

    roles: ClassVar[Sequence[str]] = ("model", "other")
    others: ClassVar[str] = "part"
    smooth: ClassVar[bool] = True
    on_scores: ClassVar[bool] = False
    changes: ClassVar[bool] = True

    @property
    def pools(self) -> bool:
        r"""Whether it takes statistics over the entries of a sample, so that padding would count."""

        return False

    @abstractmethod
    def bind(self, asked: Asked) -> Sequence[StateField]:
        r"""Returns a function of the state for each time, as :meth:`scoresde.ScoreModel.combine` does."""

    def check(self, models: Sequence[ScoreModel]) -> None:
        r"""Refuses models that it cannot guide, and a rule with attributes other than its fields."""

        known = {f.name for f in fields(self)}
        kept = [n for n in dir(type(self)) if isinstance(getattr(type(self), n), cached_property)]
        unsaid = [n for n in vars(self) if n not in known and n not in kept]
        if unsaid:
            name = type(self).__name__
            raise TypeError(
                f"the rule {name} holds {', '.join(unsaid)}, which is not one of its fields, so samples "
                f"would not get their own rows; write @dataclass(frozen=True) above {name}, and declare "
                "it there with its type."
            )

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        r"""Returns the rule with its tensors changed."""

        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return replace(self, **{name: changed(value, change) for name, value in own.items()})

    def rows(self, index: Tensor) -> Self:
        r"""Returns the rule for some rows."""

        return self.map(of_rows(index))

    def beside(self, x: Tensor) -> Self:
        r"""Returns the rule with its tensors on the device of a state, after checking their leading sizes."""

        for name, value in self.held.items():
            if len(value) not in (1, len(x)):
                raise ValueError(
                    f"{name} must have leading size {len(x)} or 1, but has {tuple(value.shape)}."
                )
        return self.map(lambda value: value.to(x.device))

    @property
    def held(self) -> dict[str, Tensor]:
        r"""Its tensors by name, each with leading size B or 1."""

        return dict(chain(*(tensors_in(f.name, getattr(self, f.name)) for f in fields(self))))

    @property
    def words(self) -> str:
        r"""A description of the rule, without the data it compares with."""

        own = [(f.name, told(getattr(self, f.name))) for f in fields(self) if f.repr]
        return words_of(type(self), [(name, text) for name, text in own if text])

    def cost(self, costs: Sequence[int]) -> int:
        r"""Returns the network calls per denoising, from those of each model."""

        return sum(costs)

    def parts(self, models: Sequence[ScoreModel]) -> dict[str, ScoreModel]:
        r"""Returns its parts by name, for plots."""

        names = chain(self.roles, (f"{self.others} {i}" for i in count(1)))
        return dict(zip(names, models, strict=False))

    def part_levels(self, models: Sequence[ScoreModel], level: float) -> list[float]:
        r"""Returns the noise levels, nearest to the given one, at which each of these parts is called."""

        return [level] * len(models)


class Rule(Guidance):
    r"""Abstract guidance by any function of the denoised data.

    Examples:
        >>> class Doubled(ss.guidance.Rule):
        ...     def __call__(self, denoised, noisy):
        ...         return 2 * denoised[0]
        >>> ss.guidance.Guided([model], Doubled()).denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[1., 1.]])
    """

    @abstractmethod
    def __call__(self, denoised: Sequence[Tensor], noisy: Noisy) -> Tensor:
        r"""Returns the denoised data, with shape (B, \*), separately for each row.

        Arguments:
            denoised: The denoised data of each model, with shape (B, \*).
            noisy: The noisy data.
        """

    def bind(self, asked: Asked) -> Sequence[StateField]:
        rule = self.beside(asked.x)

        def guided(fields: Sequence[StateField], place: Place) -> StateField:
            return lambda X: place.answer(X, rule([f(X) for f in fields], place.noisy(X)))

        return list(map(guided, asked.denoised(), asked.places))
