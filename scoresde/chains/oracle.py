r"""The exact model of a table of probabilities."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from solvers.doors.signatures import checked

from ..doors.data import as_floats
from .chain import Chain
from .model import ChainModel, checked_data

MOST = 2**20  # sequences in a table


@checked
class TableOracle(ChainModel):
    r"""Creates the exact model of sequences whose probabilities stand in a table.

    The probabilities of clean symbols are sums over all sequences,

    .. math:: p(x_0^i = c \mid x_t) \propto \sum_{x_0 : x_0^i = c} p(x_0) \prod_j q_t(x_t^j \mid x_0^j) .

    At states of probability 0, which inexact samplers may reach, they are those of the data at t_max.

    Arguments:
        probabilities: The probability of each sequence, with shape (V, ..., V) and one dimension per symbol.
        chain: The chain, whose vocabulary is V.

    Examples:
        >>> table = torch.tensor([[0.4, 0.1], [0.1, 0.4]])  # two symbols that tend to be equal
        >>> oracle = ss.chains.TableOracle(table, ss.chains.Absorbing(2))
        >>> oracle.symbols(torch.tensor([[0, 2]]), torch.tensor([0.5]))[0, 1]
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """

    table: Tensor
    sequences: Tensor

    def __init__(self, probabilities: Tensor, chain: Chain) -> None:
        table = as_floats("probabilities", probabilities, least=1).double()
        v, length = chain.vocabulary, table.ndim
        if set(table.shape) != {v} or table.numel() > MOST:
            raise ValueError(
                f"probabilities must have shape (V, ..., V) for the {v} symbols of the chain, and at most {MOST} "
                f"entries, but have {tuple(table.shape)}."
            )
        if not bool((table >= 0).all()) or not float(table.sum()) > 0:
            raise ValueError("probabilities must not be negative, and not all be 0.")
        super().__init__(self._logits, chain, "symbols", length=length)
        self.register_buffer("table", (table / table.sum()).flatten())
        self.register_buffer("sequences", torch.cartesian_prod(*[torch.arange(v)] * length))
        self.sequences = self.sequences.reshape(-1, length)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Returns the log-probability of sequences, with shape (B,).

        Arguments:
            x: Symbols, with shape (B, L).
        """

        x = checked_data(self, x)
        powers = self.chain.vocabulary ** torch.arange(x.shape[1] - 1, -1, -1, device=x.device)
        return self.table[(x * powers).sum(1)].log()

    def _logits(self, x: Tensor, t: Tensor) -> Tensor:
        seen = self.chain.evidence(x, t.double()).double()  # (B, L, V)
        places = torch.arange(x.shape[1], device=x.device)
        weights = self.table * seen[:, places, self.sequences].prod(-1)  # (B, sequences)
        possible = weights.sum(1, keepdim=True) > 0
        weights = torch.where(possible, weights, self.table)
        each = one_hot(self.sequences, self.chain.vocabulary).double()
        return torch.einsum("bn,nlv->blv", weights, each).log()
