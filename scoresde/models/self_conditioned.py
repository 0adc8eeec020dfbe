r"""Self-conditioning: a network that is given its own last estimate of the clean data.

.. math:: D_i = D(x_i, t_i, D_{i-1}) , \qquad D_0 = 0 ,

for the calls i = 1, 2, ... of a run. The estimate is the state of a recurrent network, and belongs to the run: the
model holds none. A run calls its fields by :func:`with_estimate`, which is a function of state and estimate, so
that a rejected step, or a second evaluation in the backward pass, changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from .forms import data_form
from .score_model import ScoreModel

NAME = "estimate"  # of the network's condition
CURE = f"wrap the network as ss.SelfConditioned(model, 'twice'), which finds the {NAME} by a first call"


class _Held:
    r"""The estimate of the calls within one evaluation of a field, or that of first calls, which stays unknown."""

    def __init__(self, estimate: Tensor | None, *, stays: bool = False) -> None:
        self.estimate, self.stays = estimate, stays


_HELD: ContextVar[_Held | None] = ContextVar("held", default=None)


@contextmanager
def _holding(held: _Held | None) -> Iterator[None]:
    token = _HELD.set(held)
    try:
        yield
    finally:
        _HELD.reset(token)


@contextmanager
def first_calls() -> Iterator[None]:
    r"""Has each call in its block be the first of a run, as for checks of a model before it."""

    with _holding(_Held(None, stays=True)):
        yield


@contextmanager
def no_calls() -> Iterator[None]:
    r"""Has calls in its block be refused, unless :func:`with_estimate` makes them."""

    with _holding(None):
        yield


def with_estimate(
    field: Callable[[], Tensor], estimate: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    r"""Returns the value of a function that calls a self-conditioned model, and the model's new estimate.

    Arguments:
        field: The function.
        estimate: The last estimate, with shape (B, *), or `None` for 0.
    """

    held = _Held(estimate)
    with _holding(held):
        value = field()
    return value, held.estimate


@checked
class SelfConditioned(ScoreModel):
    r"""Creates a model whose network is given its last estimate of the clean data, as the condition `estimate`.

    "carried": the estimate is that of the call before, in the same run, and 0 at the first call,

    .. math:: D_i = D(x_i, t_i, D_{i-1}) .

    A call costs what it costs without self-conditioning, but depends on all calls before, so there is no function
    of state and time: :func:`scoresde.sample`, `decode` and `resume` carry the estimate, also through the last
    denoising; latents, likelihoods and guidance of this model are refused.

    "twice": the estimate is that of a first call at the same state and time,

    .. math:: D(x, t) = D(x, t, D(x, t, 0)) ,

    which costs twice as many calls, and holds wherever any other model does.

    Of several evaluations in one step, each is given the estimate of the one before, and the next step that of the
    last. Steps that are rejected leave no estimate. For guidance, wrap the guided model, so that all its parts are
    given the guided estimate.

    References:
        | Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning (Chen et al., 2022),
        | section 2.2 and algorithm 2
        | https://arxiv.org/abs/2208.04202

    Arguments:
        model: A score model that takes the condition `estimate`, with the shape of the state.
        mode: "carried" or "twice".

    Raises:
        ValueError: If the model takes no such condition, or its process has no clean data.

    Examples:
        >>> def network(x, t, estimate):
        ...     return 0.5 * estimate + 1
        >>> inner = ss.NetworkScore(network, ss.EDM(), "data", conditions=["estimate"], shape=(2,))
        >>> ss.sample(ss.SelfConditioned(inner), 1, steps=2).x  # of three calls: 1, 1.5, 1.75
        tensor([[1.7500, 1.7500]])
        >>> ss.SelfConditioned(inner, "twice").denoise(torch.zeros(1, 2), torch.tensor([1.0]))
        tensor([[1.5000, 1.5000]])
    """

    def __init__(self, model: ScoreModel, mode: Literal["carried", "twice"] = "carried") -> None:
        super().__init__()
        if mode not in ("carried", "twice"):
            raise ValueError(f"mode must be 'carried' or 'twice', but is {mode!r}.")
        if NAME not in model.conditions:
            takes = ", ".join(model.conditions) or "none"
            raise ValueError(
                f"the model must take the condition {NAME!r}, but takes {takes}; create it with "
                f"ss.NetworkScore(network, ..., conditions=[{NAME!r}]), whose network is called with {NAME}=."
            )
        if not model.process.has_levels:
            raise ValueError(f"{model.process} has no clean data, of which there is an estimate.")
        self.resemble(model)
        self.model, self.mode = model, mode
        self.conditions = tuple(name for name in model.conditions if name != NAME)
        self.carries_estimate = mode == "carried"
        self.cost = model.cost * (2 if mode == "twice" else 1)
        self.fingerprint = model.fingerprint and f"{model.fingerprint} self-conditioned, {mode}"

    def __repr__(self) -> str:
        return f"SelfConditioned({self.model!r}, {self.mode!r})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.in_form(data_form, x, t, condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        columns = zip(*(scalars(value, x) for value in (a, b, scale)), strict=True)
        at = ((times[i : i + 1], scale[i : i + 1]) for i in range(len(times)))
        return [self._bind(*two, condition) for two in zip(columns, at, strict=True)]

    def _bind(
        self,
        factors: tuple[Scalar, ...],
        at: tuple[Tensor, Tensor],
        condition: dict[str, Tensor],
    ) -> StateField:
        (a, b, scale), (time, scales) = factors, at
        none, whole = torch.zeros_like(time), torch.ones_like(time)

        def denoised(X: Tensor, estimate: Tensor) -> Tensor:
            given = {**condition, NAME: estimate}
            return self.model.combine(time, none, whole, scales, X, **given)[0](X)

        def combined(X: Tensor) -> Tensor:
            D = self._estimated(denoised, X)
            plain = isinstance(a, float) and isinstance(b, float) and (a, b) == (0, 1)
            return D if plain else a * (scale * X) + b * D

        return combined

    def _estimated(self, denoised: Callable[[Tensor, Tensor], Tensor], X: Tensor) -> Tensor:
        r"""The denoised data of a state, given the estimate that the mode asks for."""

        zero = torch.zeros_like(X)
        if self.mode == "twice":
            return denoised(X, denoised(X, zero))
        held = _HELD.get()
        if held is None:
            refuse_memory(self, "a call outside of ss.sample and ss.decode")
        assert held is not None
        D = denoised(X, zero if held.estimate is None else held.estimate)
        if not held.stays:
            held.estimate = D
        return D


def refuse_memory(model: ScoreModel, use: str) -> None:
    r"""Refuses a model that is no function of state and time alone.

    Arguments:
        model: The model.
        use: What needs such a function, in words.
    """

    if model.carries_estimate:
        raise ValueError(
            f"{use} needs a function of state and time, but this model also depends on the {NAME} that a run "
            f"carries from call to call; {CURE}."
        )
