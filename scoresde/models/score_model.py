r"""Score models.

Noise, score and velocity are linear in the denoised data :math:`D = \mathbb{E}[x_0 \mid x_t]`,

.. math:: \mathbb{E}[z \mid x_t] = (x - \alpha D) / \sigma , \qquad
    \nabla \log p_t(x) = (\alpha D - x) / \sigma^2 , \qquad
    dx/dt = f x + \dot \lambda (\alpha D - x) ,

so a model has one operation, :math:`x \mapsto a \, x + b \, D(x)` at given times, with coefficients computed in
float64, for all times at once, before any network is called. A network's prediction is linear in D, too, and is
folded into the same coefficients, so that nothing cancels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from itertools import chain
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from solvers.doors.signatures import Door, checked, with_doors
from solvers.problem import StateField
from solvers.shapes import scalars

from ..doors.amounts import positive
from ..doors.data import as_index, as_state
from ..processes.blocks.process import BlockProcess
from ..processes.dependent import reverse_drift
from ..processes.process import Process
from .block_forms import estimate_of
from .by_sample import changed, of_rows, tensors_in, with_parts
from .conditions import Bound, Condition, as_condition, check_conditions, leaves, rows_of, spread
from .data_moments import Moments
from .forms import Form, data_form, noise_form, score_form, velocity_form
from .learned import check_learned
from .times import check_time, model_times
from .transforms import Transform

BASES = ("conditional", "strong", "model")  # names of parts that guidance leads towards
MACHINERY = frozenset(vars(nn.Module()))  # names of internal attributes of modules
UNSAID = 0.5  # assumed root mean square of data of unknown scale
OTHERS = ("unconditional", "negative", "weak", "other")  # parts that guidance leads away from


OF_STATE: dict[str, dict[str, Door]] = {
    **{name: {"x": as_state} for name in ("denoise", "raw", "noise", "score", "velocity")},
    "rows": {"index": as_index},
}  # the functions of a model that take a state, and the checks of their arguments


class ScoreModel(nn.Module, ABC):
    r"""Abstract score model. A subclass defines :meth:`denoise`; everything else is derived.

    Attributes:
        process: The process whose noise it removes.
        shape: The shape of one sample, if known.
        conditions: The names of its conditions.
        fingerprint: The name by which files identify it, if it has one.
        data_std: The preconditioning constant of an "edm" network, 0.5 by default.
        data_scale: The root mean square of the data, or `None` if it is not known. Grids, solvers and the
            check of the prior use it.
        finest: The smallest standard deviation of the data in any direction, or `None` if it is not known.
        moments: The mean and covariance of the data, for solvers that use them.
        cost: The network calls per denoising.
        bound_names: The names of the conditions that are bound.
        guided: Whether guidance has changed it, so that it is no longer the score of the noisy data.
        differentiable: Whether its estimates can be differentiated. Those of a model guided by gradients cannot.
        transform: The map between the user's data and the states that it sees, if these differ.
        learned: What its estimates are: "score", "flow", "bridge" or "consistency".
        by_sample: The names of its per-sample attributes: tensors with leading size B or 1, or lists of such.

    Examples:
        >>> class Standard(ss.ScoreModel):  # of standard normal data
        ...     process = ss.EDM()
        ...     def denoise(self, x, t):
        ...         return x / (1 + t[:, None] ** 2)
        >>> Standard().score(torch.ones(1, 2), torch.tensor([1.0]))
        tensor([[-0.5000, -0.5000]])
    """

    instead: ClassVar[str] = "; wrap a network in ss.NetworkScore(network, process, predicts=...)"

    process: Process
    shape: tuple[int, ...] | None = None
    conditions: tuple[str, ...] = ()
    fingerprint: str | None = None
    moments: Moments | None = None
    cost: int = 1
    bound_names: tuple[str, ...] = ()
    guided: bool = False
    differentiable: bool = True
    masked: bool = False  # whether some entries do not exist
    carries_estimate: bool = False  # from call to call of a run
    owned: bool = False  # whether its network is called from outside during the run
    by_sample: tuple[str, ...] = ()
    transform: Transform | None = None
    learned: str = "score"
    bare_denoise: Callable[..., Tensor]  # without checks
    _data_std: float | None = None
    _data_scale: float | None = None
    _finest: float | None = None
    _asked_at_prior: bool = False
    _steady: frozenset[tuple[str, ...]] = frozenset()  # bound conditions of steady calls
    _healthy: frozenset[tuple[str, ...]] = frozenset()  # and of calls looked at for warnings
    _checked: frozenset[tuple[str, ...]] = (
        frozenset()
    )  # modes of its derivative, and names of bound conditions

    def __init_subclass__(cls, **keywords: object) -> None:
        r"""Adds the common argument checks to the functions that a model defines."""

        super().__init_subclass__(**keywords)
        if isinstance(cls.by_sample, str):
            raise TypeError(
                f"by_sample must be a tuple of names, but is {cls.by_sample!r}; write ({cls.by_sample!r},)."
            )
        with_doors(cls, OF_STATE, check_learned)

    @property
    def data_std(self) -> float:
        return UNSAID if self._data_std is None else self._data_std

    @data_std.setter
    def data_std(self, value: float) -> None:
        self._data_std = positive("data_std", value)

    @property
    def data_scale(self) -> float | None:
        if self._data_scale is not None:
            return self._data_scale
        if isinstance(self.moments, Moments):
            return self.moments.scale
        return _said(self, "data_std")

    @data_scale.setter
    def data_scale(self, value: float | None) -> None:
        self._data_scale = None if value is None else positive("data_scale", value)

    @property
    def finest(self) -> float | None:
        if self._finest is not None:
            return self._finest
        if isinstance(self.moments, Moments):
            return self.moments.finest
        return self.data_scale

    @finest.setter
    def finest(self, value: float | None) -> None:
        self._finest = None if value is None else positive("finest", value)

    @property
    def held(self) -> Mapping[str, Tensor]:
        r"""Its own per-sample tensors, each with leading size B or 1."""

        return dict(chain(*(tensors_in(name, getattr(self, name)) for name in self.by_sample)))

    @property
    def accepts(self) -> tuple[str, ...]:
        r"""The names of all conditions that may be given: its own, and those of its process that are not bound."""

        if not self.process.conditions:
            return self.conditions
        others = dict.fromkeys((*self.conditions, *self.process.conditions))
        return tuple(name for name in others if name not in self.bound_names)

    def part_levels(self, level: float) -> list[float]:
        r"""Returns the noise levels, nearest to the given one, at which this model calls each of its parts."""

        return [level] * len(self.parts)

    @property
    def parts(self) -> "dict[str, ScoreModel]":
        r"""The parts of a guided model by name, for plots. Other models have none."""

        return {}

    @abstractmethod
    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""Returns :math:`\mathbb{E}[x_0 \mid x_t = x]`, with shape (B, *).

        Arguments:
            x: Noisy data, with shape (B, *).
            t: The time, with shape () or (B,).
            condition: The conditions, each with leading size B or 1.
        """

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""Returns the model's own quantity, with shape (B, *): the network's raw output, if it has one."""

        known = self._denoiser if self.process.has_levels else self.score
        return known(x, t, **condition)

    def noise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""Returns :math:`\mathbb{E}[z \mid x_t = x]`, with shape (B, *)."""

        return self.in_form(noise_form, x, t, condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""Returns :math:`\nabla \log p_t(x)`, with shape (B, *)."""

        return self.in_form(score_form, x, t, condition)

    def velocity(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""Returns the velocity dx/dt of the probability flow, with shape (B, *).

        Time runs towards noise; flow libraries have the opposite sign.
        """

        if not self.process.has_levels:
            return reverse_drift(self.process, x, t, self.score(x, t, **condition))
        return self.in_form(velocity_form, x, t, condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        r"""Returns the functions :math:`X \mapsto a \, x + b \, D(x)` of :math:`X = x / scale`.

        Arguments:
            times: The times, with shape (n,), or (n, B) for one per row, in float64 on the CPU.
            a: The coefficients of the noisy data, with the shape of `times`.
            b: The coefficients of the denoised data, with the shape of `times`.
            scale: The scales of the state, with the shape of `times`.
            x: A state, which sets shape, dtype and device.
            condition: The conditions.
        """

        known = self._denoiser if self.process.has_levels else self._formal

        def bind(t: Tensor, a: float, b: float, scale: float) -> StateField:
            def combined(X: Tensor) -> Tensor:
                noisy = scale * X
                D = b * known(noisy, t, **condition)
                return a * noisy + D if D.shape == X.shape else D  # states may have more parts

            return combined

        columns = (model_times(self.process, times, x), *(scalars(c, x) for c in (a, b, scale)))
        return [bind(*column) for column in zip(*columns, strict=True)]

    @property
    def _denoiser(self) -> Callable[..., Tensor]:
        r"""The method `denoise` of its class, which users cannot call unless it has learned a score."""

        return self.denoise if self.learned == "score" else self.bare_denoise

    def _formal(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""The sum of state and score, which stands for D where there are no scales, as if both were 1.

        Combinations whose weights sum to 1 commute with it, so rules that combine denoised data so combine scores.
        """

        return x + self.score(x, t, **condition)

    def resemble(self, model: "ScoreModel") -> None:
        r"""Copies the attributes of a wrapped model."""

        self.process, self.shape = model.process, model.shape
        for name in ("data_std", "data_scale", "finest"):
            setattr(self, f"_{name}", _said(model, name))
        self.moments, self.conditions, self.cost = model.moments, model.conditions, model.cost
        self.transform, self.masked = model.transform, model.masked
        self.fingerprint, self.bound_names = model.fingerprint, model.bound_names
        self.guided, self.differentiable = model.guided, model.differentiable
        self.learned, self.carries_estimate = model.learned, model.carries_estimate

    def given(self, **condition: Condition) -> "ScoreModel":
        r"""Returns the model with conditions bound, each with leading size B or 1."""

        return Given(self, check_conditions(self, condition, None)) if condition else self

    def take_condition(self, name: str, value: object) -> Bound:
        r"""Returns a condition as tensors; a model with encoders of its own takes texts."""

        return as_condition(name, value)

    def check_condition(self, name: str, value: Tensor) -> None:
        r"""Refuses a value that the model does not know, such as a label out of range."""

    def rows(self, index: Tensor) -> "ScoreModel":
        r"""Returns the model for some rows of the batch.

        By default, it holds these rows of what `by_sample` names and of the models inside it, and shares the rest.
        """

        pick = of_rows(index)
        found = {name: changed(getattr(self, name), pick) for name in self.by_sample}
        for name, value in {**vars(self), **self._modules}.items():
            part = value if name in MACHINERY else with_parts(value, (ScoreModel, Process), index)
            if part is not value:
                found[name] = part
        if not found:
            return self
        some = copy(self)
        vars(some)["_modules"] = dict(self._modules)
        for name, value in found.items():
            (some._modules if name in some._modules else vars(some))[name] = value
        return some

    def in_form(self, form: Form, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        r"""Returns a x + b D(x), with shape (B, *), whatever the model has learned.

        Arguments:
            form: The coefficients a and b as a function of process and times.
            x: States, with shape (B, *).
            t: The time, with shape () or (B,).
            condition: The conditions, each with leading size B or 1.
        """

        t = check_time(self.process, t, x)
        if isinstance(self.process, BlockProcess) and form is not data_form:
            denoised = self.bare_denoise(x, t.expand(len(x)), **condition)
            return estimate_of(form, self.process, x, denoised, t)
        a, b = form(self.process, t)
        t, a, b = (value[None] for value in (t, a, b))
        return self.combine(t, a, b, torch.ones_like(a), x, **condition)[0](x)


with_doors(ScoreModel, OF_STATE, check_learned)


@checked
class Given(ScoreModel):
    r"""Creates the model with some of its conditions bound.

    Arguments:
        model: The model.
        bound: The conditions, each with leading size B or 1, or mappings and tuples of these.

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> right = pair.given(label=torch.tensor([1]))
        >>> right.denoise(torch.ones(1, 1), torch.tensor([0.5]))
        tensor([[1.]])
    """

    def __init__(self, model: ScoreModel, bound: Mapping[str, Bound]) -> None:
        super().__init__()
        self.model, self.bound = model, dict(bound)
        self.resemble(model)
        self.process = model.process.given(bound)
        self.conditions = tuple(name for name in model.conditions if name not in bound)
        self.bound_names = (*model.bound_names, *bound)

    def __repr__(self) -> str:
        return f"{self.model!r}.given({', '.join(self.bound)})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.denoise(x, t, **self._spread(x), **condition)

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.raw(x, t, **self._spread(x), **condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.score(x, t, **self._spread(x), **condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        return self.model.combine(times, a, b, scale, x, **self._spread(x), **condition)

    def _spread(self, x: Tensor) -> dict[str, Tensor]:
        mine = self.bound
        if self.process.conditions:  # those that only the process takes
            mine = {n: v for n, v in mine.items() if n in self.model.conditions}
        return cast(dict[str, Tensor], spread(mine, x))  # as models annotate conditions

    @property
    def held(self) -> Mapping[str, Tensor]:
        found = {name: leaves(value) for name, value in self.bound.items()}
        return {
            f"{n}[{i}]" if i else n: v for n, held in found.items() for i, v in enumerate(held)
        }

    @property
    def parts(self) -> dict[str, ScoreModel]:
        return {name: _bound(part, self.bound) for name, part in self.model.parts.items()}

    def take_condition(self, name: str, value: object) -> Bound:
        return self.model.take_condition(name, value)

    def check_condition(self, name: str, value: Tensor) -> None:
        self.model.check_condition(name, value)

    def rows(self, index: Tensor) -> ScoreModel:
        return Given(self.model.rows(index), rows_of(self.bound, index))


def _bound(model: ScoreModel, bound: Mapping[str, Bound]) -> ScoreModel:
    mine = {name: value for name, value in bound.items() if name in model.accepts}
    return Given(model, mine) if mine else model


def _said(model: ScoreModel, name: str) -> float | None:
    r"""A fact about a model's data, set as an attribute or by its class."""

    by_class = getattr(type(model), name)
    said: float | None = getattr(model, f"_{name}") if isinstance(by_class, property) else by_class
    return said
