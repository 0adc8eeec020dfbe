r"""The log-probability of symbols under the exact sampler of a chain with a mask.

First hitting reveals the symbols in a random order, at random times, neither of which depends on them. So a model
gives a sequence the probability

.. math:: P(x) = \mathbb{E} \, w , \qquad w = \prod_{k=1}^L D_{x^{i_k}}(x^{i_1}, \dots, x^{i_{k-1}}; t_k) ,

the mean over orders and times of the product of the probabilities with which its symbols are revealed. Its
logarithm is estimated from the mean of some draws, at L calls each. The mean of log w is the evidence lower bound.

References:
    | Importance Weighted Autoencoders (Burda et al., 2016), theorem 1
    | https://arxiv.org/abs/1509.00519
    | Masked Diffusion Models are Secretly Time-Agnostic Masked Models (Zheng et al., 2025), section 4
    | https://arxiv.org/abs/2409.02908
"""

import math
import secrets

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import MOST, as_whole
from solvers.noise.brownian import LEVELS, keyed_uniform

from ..doors.data import as_seed, as_size
from ..likelihood.bounds import DRAWS, Bound
from ..likelihood.students import error_of_mean
from ..models.conditions import Condition
from .model import ChainModel, checked_data, with_conditions


@checked
def log_likelihood(
    model: ChainModel,
    x: Tensor,
    *,
    draws: int = DRAWS,
    seed: int | None = 0,
    first_index: int = 0,
    batch_size: int | None = None,
    **condition: Condition,
) -> Bound:
    r"""Returns the log-probability with which "first_hitting" draws symbols, for chains with a mask.

    It is exact for networks whose probabilities are those of one law, whatever the order in which symbols are
    revealed. For others, the logarithm of a mean over few draws is too low on average, by about half its squared
    standard error; for one draw, its mean is :func:`elbo`.

    Arguments:
        model: The model.
        x: Symbols, with shape (B, L).
        draws: The number of draws, each of which takes L calls.
        seed: The seed. `None` draws one.
        first_index: The index of the first sample, on which its draws depend.
        batch_size: The number of sequences in one call. By default, all of them.
        condition: The conditions of the model, each with leading size B or 1.

    Returns:
        The log-probability in nats, and its standard error, which is NaN for a single draw.

    Raises:
        ValueError, TypeError: If an argument is invalid, or the chain has no mask. SolverError: If the network
            returns NaN.

    Examples:
        >>> oracle = ss.chains.TableOracle(torch.tensor([[0.4, 0.1], [0.2, 0.3]]), ss.chains.Absorbing(2))
        >>> ss.chains.log_likelihood(oracle, torch.tensor([[0, 0], [1, 0]]), draws=2).nats.exp()
        tensor([0.4000, 0.2000], dtype=torch.float64)
    """

    chain, x = model.chain, checked_data(model, x)
    if chain.states == chain.vocabulary:
        raise ValueError(
            f"log_likelihood needs a chain with a mask, whose symbols move once, but model has {chain}; use "
            "ss.elbo, a lower bound."
        )
    model = with_conditions(model, condition, len(x))
    as_whole("draws", draws, at_least=1, at_most=MOST)
    seed = secrets.randbits(31) if seed is None else as_seed("seed", seed)
    size = len(x) if batch_size is None else as_size("batch_size", batch_size)
    first = as_whole("first_index", first_index, at_least=0)
    with torch.no_grad():
        parts = [
            torch.stack([
                _revealed(
                    model.rows(rows),
                    x[rows],
                    keyed_uniform(seed, rows + first, LEVELS, draw, x.shape[1]),
                )
                for draw in range(draws)
            ])
            for rows in torch.arange(len(x), device=x.device).split(size)
        ]  # fmt: skip
    logs = torch.cat(parts, 1)
    nats = logs.logsumexp(0) - math.log(draws)
    return Bound(nats, error_of_mean((logs - nats).exp()), draws * x.shape[1])


def _revealed(model: ChainModel, x: Tensor, u: Tensor) -> Tensor:
    r"""The log-probability of symbols that are revealed in order of falling numbers u, with shape (B,)."""

    mask = model.chain.vocabulary
    noise, order = u.sort(1, descending=True)
    seen, total = torch.full_like(x, mask), torch.zeros(len(x), dtype=torch.float64).to(x.device)
    for share, place in zip(noise.T, order.T, strict=True):
        here = place[:, None]
        found = model.log_jumps(seen, model.chain.time(share))
        symbol = x.gather(1, here)
        each = found.gather(1, here[..., None].expand(-1, -1, mask))[:, 0].gather(1, symbol)
        total = total + each[:, 0].double()
        seen = seen.scatter(1, here, symbol)
    return total
