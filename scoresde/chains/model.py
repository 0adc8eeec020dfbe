r"""Models of chains: the jumps back to data, from a network."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from solvers import Failure, SolverError
from solvers.doors.signatures import checked
from solvers.doors.values import as_whole
from solvers.network_calls import count_call

from ..models.checks import device_of, dtype_of
from ..models.complaints import MISSING
from ..models.conditions import (
    Bound,
    Condition,
    as_condition,
    check_conditions,
    check_names,
    floats_like,
    leaves,
    rows_of,
    spread,
)
from .chain import Chain, Uniform
from .symbols import as_symbols

Predicts = Literal["symbols", "ratios"]


@checked
class ChainModel(nn.Module):
    r"""Creates the model of a chain from a network.

    `predicts` has no default, since nothing in a network shows what it predicts:

    - "symbols": the logits of the clean symbol, :math:`\log p(x_0^i = c \mid x_t)` up to a constant.
    - "ratios": the concrete scores :math:`\log p_t(x^{i \to c}) / p_t(x)`. Those of a chain with a mask count
      where x is masked, and only relative to each other, since their sum over c is known.

    Arguments:
        network: The network, called as `network(x, t, **condition)` with symbols of shape (B, L) in int64 and
            times of shape (B,). It returns a tensor of shape (B, L, V).
        chain: The chain, :class:`scoresde.chains.Absorbing` or :class:`scoresde.chains.Uniform`.
        predicts: What the network predicts.
        length: The length L of a sequence, if known.
        conditions: The names of the conditions that the network takes, such as ["label"].

    References:
        | Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., 2021), for "symbols"
        | https://arxiv.org/abs/2107.03006
        | Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al., 2024),
        | section 3, for "ratios"
        | https://arxiv.org/abs/2310.16834

    Examples:
        >>> chain = ss.chains.Absorbing(3)
        >>> fair = ss.chains.ChainModel(lambda x, t: torch.zeros(*x.shape, 3), chain, "symbols")
        >>> fair.symbols(torch.tensor([[3, 1]]), torch.tensor([0.5]))  # of a mask, and of a 1
        tensor([[[0.3333, 0.3333, 0.3333],
                 [0.0000, 1.0000, 0.0000]]])
    """

    meant_for: ClassVar[str] = (
        "; it is a model of a chain of symbols, for ss.sample, ss.inpaint, ss.log_likelihood and ss.elbo, whose "
        "options are those of ss.chains, and ss.chains.loss"
    )
    answers: ClassVar[dict[str, Callable[..., Any]]] = {}  # to verbs of score models

    def __init__(
        self,
        network: Callable[..., Tensor],
        chain: Chain,
        predicts: Predicts,
        *,
        length: int | None = None,
        conditions: Sequence[str] = (),
    ) -> None:
        super().__init__()
        as_whole("length", length, at_least=1)
        silent = float(chain.shares(torch.tensor(chain.t_max).double())[0]) == 0
        if predicts == "ratios" and isinstance(chain, Uniform) and silent:
            raise ValueError(
                f"predicts='ratios' does not determine the symbols at t_max={chain.t_max:.4g}, where no signal "
                "is left; make the chain with an earlier t_max, such as 0.999."
            )
        self.network, self.chain, self.predicts, self.length = network, chain, predicts, length
        self.conditions = check_names(conditions)
        self.bound: dict[str, Bound] = {}
        self.bound_names: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        r"""The dtype of the times."""

        return dtype_of(self.modules())

    @property
    def device(self) -> torch.device:
        r"""The device of the network."""

        return device_of(self.modules()) or torch.get_default_device()

    @property
    def accepts(self) -> tuple[str, ...]:
        r"""The names of the conditions that may be given."""

        return tuple(name for name in self.conditions if name not in self.bound)

    def given(self, **condition: Condition) -> "ChainModel":
        r"""Returns the model with conditions bound, each with leading size B or 1."""

        return self._bound({**self.bound, **check_conditions(self, condition, None)})

    def take_condition(self, name: str, value: object) -> Bound:
        r"""Returns a condition as tensors."""

        return as_condition(name, value)

    def check_condition(self, name: str, value: Tensor) -> None:
        r"""Refuses a value that the model does not know."""

    def rows(self, index: Tensor) -> "ChainModel":
        r"""Returns the model for some rows of the batch."""

        return self._bound(rows_of(self.bound, index))

    def _bound(self, bound: Mapping[str, Bound]) -> "ChainModel":
        found = copy(self)  # with the same network
        found.bound, found.bound_names = dict(bound), tuple(bound)
        return found

    def symbols(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the probabilities of the clean symbols, :math:`p(x_0^i = c \mid x_t)`, with shape (B, L, V).

        Arguments:
            x: Noisy symbols, with shape (B, L).
            t: The times, with shape (B,).
        """

        if self.predicts == "ratios":
            return self.chain.symbols(self.log_jumps(x, t), x, t)
        return self.chain.known(self._called(x, t).softmax(-1), x)

    def log_jumps(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns logarithms of the reverse rates over the speed of the chain, with shape (B, L, V).

        Arguments:
            x: Noisy symbols, with shape (B, L).
            t: The times, with shape (B,).
        """

        found = self._called(x, t)
        if self.predicts == "ratios":
            return self.chain.log_jumps_of_ratios(found, x)
        return self.chain.log_jumps(found.log_softmax(-1), x, t)

    def jumps(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the reverse rates over the speed of the chain, with shape (B, L, V).

        Arguments:
            x: Noisy symbols, with shape (B, L).
            t: The times, with shape (B,).
        """

        return self.log_jumps(x, t).exp()

    def rates(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the reverse rates to each symbol other than x, with shape (B, L, V).

        Arguments:
            x: Noisy symbols, with shape (B, L).
            t: The times, with shape (B,).
        """

        jumps = self.jumps(x, t)
        return self.chain.speed(t).to(jumps)[:, None, None] * jumps

    def _called(self, x: Tensor, t: Tensor) -> Tensor:
        r"""The output of the network, after checking its shape and values."""

        count_call()
        t = t.to(self.dtype)
        try:
            out = self.network(x, t, **floats_like(spread(self.bound, x), t))
        except TypeError as error:
            missing = MISSING.search(str(error))
            if not missing or not self.accepts:
                raise
            name = self.accepts[0]
            raise TypeError(
                f"the network needs {name}=, which is not bound; pass {name}= to the call, or bind it by "
                f"model.given({name}=...)."
            ) from error
        wanted = (*x.shape, self.chain.vocabulary)
        if not isinstance(out, Tensor) or out.shape != wanted:
            said = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"network must return a tensor of shape (B, L, V) = {wanted}, but returns {said}."
            )
        bad = ~out.amax(-1).isfinite().all(1)  # where it is NaN, or tells of no symbol at all
        if bool(bad.any()):
            rows = tuple(bad.nonzero()[:, 0].tolist())
            raise SolverError(Failure("nonfinite", rows, f"t={float(t[rows[0]]):.4g}"))
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def __repr__(self) -> str:
        bound = f".given({', '.join(self.bound)})" if self.bound else ""
        return f"ChainModel({self.chain}, predicts={self.predicts!r}){bound}"


def with_conditions(
    model: ChainModel, condition: Mapping[str, Condition], count: int
) -> ChainModel:
    r"""Returns a model with conditions bound, all of which must fit the number of samples."""

    model = model.given(**condition) if condition else model
    for name, value in model.bound.items():
        for leaf in leaves(value):
            if len(leaf) not in (1, count):
                raise ValueError(
                    f"{name} must have leading size {count} or 1, but has shape {tuple(leaf.shape)}."
                )
    return model


def checked_data(model: ChainModel, x: object) -> Tensor:
    r"""Returns clean symbols of the length that the model knows, on its device."""

    x = as_symbols("x", x, model.chain.vocabulary).to(model.device)
    if model.length not in (None, x.shape[1]):
        raise ValueError(
            f"x must have shape (B, {model.length}) for this model, but has {tuple(x.shape)}."
        )
    return x
