r"""Models of chains: the jumps back to data, from a network."""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from solvers import Failure, SolverError
from solvers.doors.signatures import checked
from solvers.doors.values import as_whole
from solvers.network_calls import count_call

from ..models.checks import device_of, dtype_of
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
        network: The network, called as `network(x, t)` with symbols of shape (B, L) in int64 and times of shape
            (B,). It returns a tensor of shape (B, L, V).
        chain: The chain, :class:`scoresde.chains.Absorbing` or :class:`scoresde.chains.Uniform`.
        predicts: What the network predicts.
        length: The length L of a sequence, if known.

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
        "; it is a model of a chain of symbols, for ss.chains.sample, ss.chains.elbo and ss.chains.loss"
    )

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        chain: Chain,
        predicts: Predicts,
        *,
        length: int | None = None,
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

    @property
    def dtype(self) -> torch.dtype:
        r"""The dtype of the times."""

        return dtype_of(self.modules())

    @property
    def device(self) -> torch.device:
        r"""The device of the network."""

        return device_of(self.modules()) or torch.get_default_device()

    def symbols(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the probabilities of the clean symbols, :math:`p(x_0^i = c \mid x_t)`, with shape (B, L, V).

        Arguments:
            x: Noisy symbols, with shape (B, L).
            t: The times, with shape (B,).
        """

        if self.predicts == "ratios":
            return self.chain.symbols(self.jumps(x, t), x, t)
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
        out = self.network(x, t.to(self.dtype))
        wanted = (*x.shape, self.chain.vocabulary)
        if not isinstance(out, Tensor) or out.shape != wanted:
            said = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"network must return a tensor of shape (B, L, V) = {wanted}, but returns {said}."
            )
        bad = out.isnan().flatten(1).any(1)
        if bool(bad.any()):
            rows = tuple(bad.nonzero()[:, 0].tolist())
            raise SolverError(Failure("nonfinite", rows, f"t={float(t[rows[0]]):.4g}"))
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def __repr__(self) -> str:
        return f"ChainModel({self.chain}, predicts={self.predicts!r})"


def checked_data(model: ChainModel, x: object) -> Tensor:
    r"""Returns clean symbols of the length that the model knows, on its device."""

    x = as_symbols("x", x, model.chain.vocabulary).to(model.device)
    if model.length not in (None, x.shape[1]):
        raise ValueError(
            f"x must have shape (B, {model.length}) for this model, but has {tuple(x.shape)}."
        )
    return x
