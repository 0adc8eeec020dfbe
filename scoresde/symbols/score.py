r"""Score models of embedded symbols: networks that predict the symbol."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.shapes import align

from ..models.network import NetworkScore
from ..models.transforms import Transform
from ..processes.process import Process
from .embedding import Embedding
from .form import Symbols

_SEEN: ContextVar[list[Tensor] | None] = ContextVar("seen", default=None)


@contextmanager
def logits_seen() -> Iterator[list[Tensor]]:
    r"""Collects the logits of the calls in its block."""

    seen: list[Tensor] = []
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


class Vectors(Symbols):
    r"""Creates the map between symbols and their vectors in an embedding. Samples get the nearest vector.

    Arguments:
        embedding: The embedding.
        shape: The shape of one state, if known.

    Examples:
        >>> vectors = ss.symbols.Vectors(ss.symbols.Embedding(5, 3))
        >>> vectors.outside(vectors.inside("x", torch.tensor([[3, 1]])))
        tensor([[3, 1]])
    """

    @checked
    def __init__(self, embedding: Embedding, shape: Sequence[int] | None = None) -> None:
        self.embedding, self.count, self.width = embedding, embedding.count, embedding.width
        self.shape = None if shape is None else tuple(shape)

    def __repr__(self) -> str:
        return f"Vectors({self.count} symbols, width {self.width})"

    @property
    def distance(self) -> float:
        return float(nn.functional.pdist(self.embedding.vectors.detach()).min())

    def code(self, symbols: Tensor) -> Tensor:
        return self.embedding(symbols.to(self.embedding.weight.device)).detach()

    def outside(self, x: Tensor) -> Tensor:
        return self.embedding.nearest(x)

    def held(self, name: str, x: object) -> Tensor:
        found = self.outside(self.inside(name, x))
        numbers = found.to(self.embedding.weight.dtype)[..., None]
        return numbers.expand(*found.shape, self.width)

    def current(self, held: Tensor) -> Tensor:
        return self.embedding(held[..., 0].round().long())

    def log_probabilities(self, denoised: Tensor, logits: Tensor | None) -> Tensor:
        if logits is None:
            raise TypeError(
                "model must be an ss.symbols.EmbeddedScore, whose network gives the logits of symbols; denoised "
                "vectors alone do not determine probabilities."
            )
        return logits.double().log_softmax(-1)

    @property
    def described(self) -> dict[str, Any]:
        return {"name": "Vectors", "count": self.count, "width": self.width}

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"vectors": self.embedding.vectors.detach()}


class Interpolated(nn.Module):
    r"""Creates the network of vectors, :math:`\sum_k p_k e_k`, around one that returns logits.

    Arguments:
        network: The network.
        embedding: The embedding.
        process: The process, whose noise level the network is told.
        evidence: Whether what each noisy vector says of its own symbol is added.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        embedding: Embedding,
        process: Process,
        evidence: bool,
    ) -> None:
        super().__init__()
        self.network, self.embedding, self.process = network, embedding, process
        self.evidence = evidence

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        alpha, sigma = self.process.scales(t.double())
        size = (alpha.square() + sigma.square()).sqrt()
        label = (sigma / alpha).log() / 4
        logits = self.network(x / align(size.to(x), x), label.to(x), **condition)
        wanted = (*x.shape[:-1], self.embedding.count)
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"the network must return one logit for each symbol, with shape {wanted}, not {found}."
            )
        vectors = self.embedding.vectors.to(logits)
        if self.evidence:
            logits = logits + align((alpha / sigma**2).to(x), x) * x @ vectors.T
        seen = _SEEN.get()
        if seen is not None:
            seen.append(logits)
        return logits.softmax(-1) @ vectors


def network_of(model: NetworkScore) -> object:
    r"""Returns the network of a model; of embedded symbols, that which returns logits."""

    network = model.network
    return network.network if isinstance(network, Interpolated) else network


@checked
class EmbeddedScore(NetworkScore):
    r"""Creates a score model of embedded symbols from a network that predicts the clean symbol.

    With the probabilities p of the network, the denoised data is the expected vector, which makes the score an
    interpolation of those of all symbols,

    .. math:: D(x) = \sum_k p_k(x) \, e_k , \qquad
        \nabla \log p_t(x) = \sum_k p_k(x) \, \frac{\alpha e_k - x}{\sigma^2} .

    With `evidence`, what each noisy vector says of its own symbol is added in closed form,

    .. math:: \log p_k(x) = l_k(x) + \frac{\alpha}{\sigma^2} \, e_k \cdot x + \text{const} ,

    so the network's logits l are left with what follows from frequencies and from other symbols; the exact ones do
    not depend on the vector at their own position. Little noise, where symbols can be read off, needs no learning.

    Its data are symbols: samples are whole numbers, with the vector nearest to the last denoised data. Train it
    with :func:`scoresde.losses.cross_entropy`, by which the embedding is learned too.

    References:
        | Continuous Diffusion for Categorical Data (Dieleman et al., 2022)
        | https://arxiv.org/abs/2211.15089

    Arguments:
        network: The network, called as `network(x, level, **condition)` with noisy vectors over
            :math:`\sqrt{\alpha^2 + \sigma^2}`, with shape (B, \*, n), and :math:`\log (\sigma / \alpha) / 4`,
            with shape (B,), that returns logits with shape (B, \*, K).
        embedding: The embedding.
        process: The process whose noise it removes.
        conditions: The names of its conditions.
        shape: The shape of the symbols of one sample, if known.
        evidence: Whether the evidence of each noisy vector is added to the logits.

    Examples:
        >>> class Network(torch.nn.Linear):
        ...     def forward(self, x, level):
        ...         return super().forward(x) * torch.exp(-level)[:, None, None]
        >>> words = ss.symbols.EmbeddedScore(
        ...     Network(3, 5), ss.symbols.Embedding(5, 3), ss.VP(), shape=(4,)
        ... )
        >>> s = ss.sample(words, 2, steps=3)
        >>> s.x.shape, s.x.dtype
        (torch.Size([2, 4]), torch.int64)
    """

    def __init__(
        self,
        network: nn.Module | Callable[..., Tensor],
        embedding: Embedding,
        process: Process,
        *,
        conditions: Sequence[str] = (),
        shape: Sequence[int] | None = None,
        evidence: bool = False,
    ) -> None:
        if not callable(network):
            raise TypeError(f"network must be a module or a function, but is {network!r}.")
        if not isinstance(process, Process) or not process.has_scales:
            raise ValueError(
                f"process must have noise levels, as ss.VP() has, but is {process!r}."
            )
        form = Vectors(embedding)
        super().__init__(
            Interpolated(network, embedding, process, evidence),
            process,
            "data",
            conditions=conditions,
            shape=form.state_shape(shape),
            data_scale=1.0,
        )
        self._other: tuple[Transform | None] | tuple[()] = ()  # in place of its own

    @property
    def embedding(self) -> Embedding:
        r"""The embedding."""

        assert isinstance(self.network, Interpolated)
        return self.network.embedding

    @property
    def evidence(self) -> bool:
        r"""Whether the evidence of each noisy vector is added to the logits."""

        assert isinstance(self.network, Interpolated)
        return self.network.evidence

    @property
    def transform(self) -> Transform | None:
        return self._other[0] if self._other else Vectors(self.embedding, self.shape)

    @transform.setter
    def transform(self, value: Transform | None) -> None:
        self._other = (value,)

    def logits(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        r"""Returns the logits of the clean symbols, with shape (B, \*, K).

        Arguments:
            x: Noisy vectors, with shape (B, \*, n).
            t: The time, with shape () or (B,).
            condition: The conditions, each with leading size B or 1.
        """

        with logits_seen() as seen:
            self.denoise(x, t, **condition)
        return seen[-1]
