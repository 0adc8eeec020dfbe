r"""The evidence lower bound of symbols in continuous time, and the loss with which it is trained.

The path of the model, backwards in time, is compared with that of the chain given the data, whose rates are
:math:`R = \hat R` for :math:`D = 1_{x_0}`:

.. math:: \log p(x_0) \geq - \int \mathbb{E}_{q_t(x \mid x_0)} \sum_{y \neq x}
    \Big[ \hat R(x \to y) - R(x \to y) + R(x \to y) \log \frac{R(x \to y)}{\hat R(x \to y)} \Big] dt
    - \mathrm{KL} (q_{t_{max}}(x \mid x_0) \, \| \, \pi) ,

and :math:`\mathbb{E} \sum_i \log D_{x_0^i}` at t_min, unless nothing is noise there.
For the exact model and no signal left at t_max, it is an equality for each :math:`x_0`, since the reverse paths of
the model and of the chain then have one law, given where they end. With a mask it is the cross-entropy of the
masked symbols,

.. math:: \int \frac{- \dot \alpha}{1 - \alpha} \, \mathbb{E} \sum_{i: \, x^i = mask} - \log D_{x_0^i} \, dt .

References:
    | A Continuous Time Framework for Discrete Denoising Models (Campbell et al., 2022), proposition 2
    | https://arxiv.org/abs/2205.14987
    | Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al., 2024), theorem 3.6
    | https://arxiv.org/abs/2310.16834
    | Simple and Effective Masked Diffusion Language Models (Sahoo et al., 2024), equation (10)
    | https://arxiv.org/abs/2406.07524
    | Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., 2021), equation (1), in steps
    | https://arxiv.org/abs/2107.03006
"""

import secrets

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from solvers.doors.signatures import checked
from solvers.doors.values import MOST, as_whole
from solvers.noise.brownian import DATA_NOISE, LEVELS, keyed_uniform

from ..doors.data import as_seed, as_size
from ..likelihood.bounds import DRAWS, NODES, Bound
from ..likelihood.students import error_of_mean
from ..models.conditions import Condition
from .chain import Chain
from .model import ChainModel, checked_data, with_conditions


@checked
def elbo(
    model: ChainModel,
    x: Tensor,
    *,
    steps: int | None = None,
    nodes: int = NODES,
    draws: int = DRAWS,
    seed: int | None = 0,
    first_index: int = 0,
    batch_size: int | None = None,
    **condition: Condition,
) -> Bound:
    r"""Returns the evidence lower bound of the log-probability of symbols.

    It is an average over `draws` independent estimates, which give the standard error, each with `nodes` times
    spread evenly over the root of the share of noise. Early, few symbols are noise, and each counts the more: even
    times would have no finite variance.

    Arguments:
        model: The model.
        x: Symbols, with shape (B, L).
        steps: The number of steps, for the bound of samples drawn by "analytic" in equal steps of time, which is
            below that in continuous time, the default.
        nodes: The number of times of each draw.
        draws: The number of draws.
        seed: The seed. `None` draws one.
        first_index: The index of the first sample. The bound of a sample depends on the seed and its index alone.
        batch_size: The number of sequences in one call. By default, all of them.
        condition: The conditions of the model, each with leading size B or 1.

    Raises:
        ValueError, TypeError: If an argument is invalid. SolverError: If the network returns NaN.

    Examples:
        >>> oracle = ss.chains.TableOracle(torch.tensor([0.9, 0.1]), ss.chains.Absorbing(2))
        >>> bound = ss.chains.elbo(oracle, torch.tensor([[0], [1]]), draws=200)
        >>> [round(float(p), 1) for p in bound.nats.exp()]
        [0.9, 0.1]
    """

    x = checked_data(model, x)
    model = with_conditions(model, condition, len(x))
    as_whole("steps", steps, at_least=1, at_most=MOST)
    as_whole("nodes", nodes, at_least=1, at_most=MOST)
    as_whole("draws", draws, at_least=1, at_most=MOST)
    seed = secrets.randbits(31) if seed is None else as_seed("seed", seed)
    size = len(x) if batch_size is None else as_size("batch_size", batch_size)
    first = as_whole("first_index", first_index, at_least=0)
    with torch.no_grad():
        parts = [
            _drawn(model.rows(rows), x[rows], rows + first, seed, (nodes, draws), steps)
            for rows in torch.arange(len(x), device=x.device).split(size)
        ]
    values = torch.cat(parts, 1)
    nats = values.mean(0) - ending(model.chain, x)
    return Bound(nats, error_of_mean(values), draws * (nodes + _is_noisy(model.chain)))


@checked
def loss(
    model: ChainModel,
    x: Tensor,
    t: Tensor | None = None,
    *,
    seed: int = 0,
    first_index: int = 0,
    **condition: Condition,
) -> Tensor:
    r"""Returns the loss of each sample at its time, with shape (B,), in nats.

    Its mean over uniform times is the negative :func:`elbo`, up to what is left of the data at t_max.

    Arguments:
        model: The model.
        x: Symbols, with shape (B, L).
        t: The times, with shape (B,). By default, they are spread evenly over the batch.
        seed: The seed of the noise.
        first_index: The index of the first sample.
        condition: The conditions of the model, each with leading size B or 1.

    Raises:
        ValueError: If a time is one of the ends of the chain.

    Examples:
        >>> chain = ss.chains.Absorbing(3)
        >>> fair = ss.chains.ChainModel(lambda x, t: torch.zeros(*x.shape, 3), chain, "symbols")
        >>> x = torch.zeros(1, 1, dtype=torch.long)
        >>> round(ss.chains.loss(fair, x, torch.tensor([0.99])).item(), 4)  # log(3) / t
        1.1097
    """

    x = checked_data(model, x)
    model = with_conditions(model, condition, len(x))
    seed = as_seed("seed", seed)
    index = torch.arange(len(x), device=x.device) + as_whole(
        "first_index", first_index, at_least=0
    )
    chain = model.chain
    t = stratified_times(chain, len(x), seed=seed) if t is None else chain.checked_times(t, len(x))
    if bool((t == chain.t_min).any() or (t == chain.t_max).any()):
        raise ValueError(
            f"t must lie between {chain.t_min:.4g} and {chain.t_max:.4g}, not at an end."
        )
    u = keyed_uniform(seed, index, DATA_NOISE, 0, x.shape[1])
    t = t.to(x.device)
    span = chain.t_max - chain.t_min
    return span * chain.speed(t) * apart(model, x, chain.noised(x, t, u), t)


@checked
def stratified_times(chain: Chain, count: int, *, seed: int = 0) -> Tensor:
    r"""Returns times spread evenly over the domain of a chain, with shape (n,): one in each n-th part of it.

    Arguments:
        chain: The chain.
        count: The number n of times.
        seed: The seed.

    Examples:
        >>> (4 * ss.chains.stratified_times(ss.chains.Absorbing(3), 4)).floor().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    number = torch.arange(as_size("count", count))
    u = keyed_uniform(as_seed("seed", seed), number, LEVELS, 0, 1)[:, 0]
    return chain.t_min + (chain.t_max - chain.t_min) * (number + u) / count


def apart(model: ChainModel, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    r"""Returns the negative integrand of the bound over the speed of the chain, with shape (B,), in float64.

    Arguments:
        model: The model.
        x: Clean symbols, with shape (B, L).
        y: Noisy symbols, with shape (B, L).
        t: The times, with shape (B,), in float64.
    """

    chain = model.chain
    found = model.log_jumps(y, t)
    true = chain.log_jumps(one_hot(x, chain.vocabulary).to(found).log(), y, t)
    share = true.exp()
    cross = share * (true - found).masked_fill(share == 0, 0.0)
    return (found.exp() - share + cross).flatten(1).sum(1).double()


def ending(chain: Chain, x: Tensor) -> Tensor:
    r"""Returns the divergence of the law at t_max from noise, with shape (B,)."""

    t = torch.full((len(x),), chain.t_max, dtype=torch.float64, device=x.device)
    law, noise = chain.marginal(x, t), chain.noise.to(x.device)
    return (torch.xlogy(law, law) - torch.xlogy(law, noise)).flatten(1).sum(1)


def _drawn(
    model: ChainModel,
    x: Tensor,
    index: Tensor,
    seed: int,
    counts: tuple[int, int],
    steps: int | None,
) -> Tensor:
    r"""The bounds of each draw, without the part of t_max, with shape (draws, B)."""

    chain, found = model.chain, []
    nodes, draws = counts
    for number in range(draws):
        offset = keyed_uniform(seed, index, LEVELS, number, 1)[:, 0]
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for j in range(nodes):
            place = (j + offset) / nodes
            u = keyed_uniform(seed, index, DATA_NOISE, number * nodes + j, x.shape[1])
            total = total - _gap(model, x, place, u, steps) / nodes
        if _is_noisy(chain):
            u = keyed_uniform(seed, index, DATA_NOISE, nodes * draws + number, x.shape[1])
            total = total + _told(model, x, u)
        found.append(total)
    return torch.stack(found)


def _gap(model: ChainModel, x: Tensor, place: Tensor, u: Tensor, steps: int | None) -> Tensor:
    r"""The divergence of the paths, whose mean over places in (0, 1) and noise is the bound, with shape (B,)."""

    chain = model.chain
    if steps is None:
        ends = torch.tensor([chain.t_min, chain.t_max], dtype=torch.float64)
        least, most = chain.shares(ends)[1].tolist()
        t = chain.time(least + (most - least) * place**2)
        weight = 2 * place * (most - least) * chain.speed_per_share(t)
        return weight * apart(model, x, chain.noised(x, t, u), t)
    step = (place * steps).floor()
    s, t = (chain.t_min + (chain.t_max - chain.t_min) * (step + i) / steps for i in (0, 1))
    y = chain.noised(x, t, u)
    made = chain.posterior(model.symbols(y, t).double(), y, t, s)
    true = chain.posterior(one_hot(x, chain.vocabulary).double(), y, t, s)
    return steps * (torch.xlogy(true, true) - torch.xlogy(true, made)).flatten(1).sum(1)


def _is_noisy(chain: Chain) -> bool:
    r"""Whether there is noise at t_min."""

    return bool(chain.shares(torch.tensor(chain.t_min).double())[1] > 0)


def _told(model: ChainModel, x: Tensor, u: Tensor) -> Tensor:
    r"""The log-probability of clean symbols given noisy ones at t_min, with shape (B,)."""

    t = torch.full((len(x),), model.chain.t_min, dtype=torch.float64, device=x.device)
    clean = model.symbols(model.chain.noised(x, t, u), t)
    return clean.gather(-1, x[..., None])[..., 0].double().log().sum(1)
