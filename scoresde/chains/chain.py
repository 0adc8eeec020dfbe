r"""Forward processes of symbols: continuous-time Markov chains that change each symbol on its own.

A symbol jumps with the rates :math:`\beta(t) \, Q`, so that after the time t it is still the symbol of the data
with the share :math:`\alpha(t)`, :math:`\beta = - d \log \alpha / dt`, and otherwise noise:

.. math:: q_t(y \mid c) = \alpha \, 1_{y = c} + (1 - \alpha) \, \pi(y) .

The chain of a whole sequence runs backwards with the rates

.. math:: \hat R_t(x \to y) = \beta(t) \, Q(y \to x) \, \frac{p_t(y)}{p_t(x)}

for all y that differ from x in one place. They are a speed, which depends on time alone, times *jumps*, which
follow from the probabilities :math:`D_c = p(x_0^i = c \mid x_t)` of clean symbols, or from the ratios of
probabilities that a network of concrete scores predicts.

References:
    | A Continuous Time Framework for Discrete Denoising Models (Campbell et al., 2022), proposition 1
    | https://arxiv.org/abs/2205.14987
    | Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al., 2024)
    | https://arxiv.org/abs/2310.16834
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from solvers.doors.signatures import checked
from solvers.doors.values import Shape
from solvers.noise.brownian import DATA_NOISE, START, keyed_uniform

from ..doors.data import as_times
from ..processes.schedules import Schedule, sigmoid
from .draws import draw
from .schedule import Linear
from .symbols import as_symbols, check_vocabulary, shape_of

INSIDE = 1e-12  # of the time span: how far from its ends slopes are taken
SILENT = 1e-3  # share of the data, times the root of V: a symbol then tells less than 1e-6 nats


@dataclass(frozen=True)
class Chain(ABC):
    r"""Abstract chain of symbols 0 to V - 1.

    Arguments:
        vocabulary: The number V of symbols of the data.
        schedule: The noise schedule :math:`\lambda`. The share is that of the signal in the variance of
            :class:`scoresde.VP`, :math:`\alpha = 1 / (1 + e^{-2 \lambda})`. By default, it falls linearly.
        t_min: The first time. By default, the schedule's.
        t_max: The last time. By default, the schedule's, or that of a chain without signal there.

    Examples:
        >>> chain = ss.chains.Absorbing(3, ss.Cosine(), t_max=0.9)
        >>> chain.states, chain.t_min, round(float(chain.shares(torch.tensor(0.9))[0]), 6)
        (4, 1e-05, 0.0)
    """

    vocabulary: int
    schedule: Schedule = field(default_factory=Linear)
    t_min: float = math.nan
    t_max: float = math.nan

    def __post_init__(self) -> None:
        check_vocabulary(self.vocabulary)
        low, high = self.schedule.domain
        for name, default in (("t_min", low), ("t_max", self._end)):
            if math.isnan(getattr(self, name)):
                object.__setattr__(self, name, default)
        if not low <= self.t_min < self.t_max <= high:
            raise ValueError(
                f"t_min and t_max must satisfy {low:.4g} <= t_min < t_max <= {high:.4g}, the domain of "
                f"{self.schedule}, but are {self.t_min} and {self.t_max}."
            )

    @property
    @abstractmethod
    def states(self) -> int:
        r"""The number S of states of one symbol."""

    @property
    @abstractmethod
    def noise(self) -> Tensor:
        r"""The law :math:`\pi` of a symbol of which nothing is left, with shape (S,)."""

    @property
    def generator(self) -> Tensor:
        r"""The rates Q from each state (rows) to each other state, with shape (S, S)."""

        return self.noise.expand(self.states, -1) - torch.eye(self.states).double()

    @property
    def _end(self) -> float:
        r"""The last time by default."""

        return self.schedule.domain[1]

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the share :math:`\alpha` of the data and that of noise, with the shape of `t`."""

        log_snr, left = self.schedule.bare_call(t), self._left
        alpha, rest = _sigmoid(2 * log_snr), _sigmoid(-2 * log_snr)
        return ((alpha - left) / (1 - left)).clamp(min=0), (rest / (1 - left)).clamp(max=1)

    @cached_property
    def _left(self) -> float:
        r"""The share of the data in the schedule at t_max that is taken away from the shares."""

        return 0.0

    def time(self, noise: Tensor) -> Tensor:
        r"""Returns the times at which noise has the given share."""

        rest = noise * (1 - self._left)
        log_snr = (torch.log1p(-rest) - rest.log()) / 2
        return self.schedule.bare_inverse(log_snr).clamp(self.t_min, self.t_max)

    def fall(self, t: Tensor) -> Tensor:
        r"""Returns the speed :math:`- d \alpha / dt`, with the shape of `t`."""

        edge = INSIDE * (self.t_max - self.t_min)
        t = t.detach().double().clamp(self.t_min + edge, self.t_max - edge)
        with torch.enable_grad():
            t = t.requires_grad_()
            log_snr = self.schedule.bare_call(t)
            (slope,) = torch.autograd.grad(log_snr.sum(), t)
        signal, noise = (_sigmoid(sign * 2 * log_snr.detach()) for sign in (1, -1))
        return -2 * slope * signal * noise / (1 - self._left)

    def rate(self, t: Tensor) -> Tensor:
        r"""Returns the factor :math:`\beta(t)` of the rates, with the shape of `t`."""

        return self.fall(t) / self.shares(t.double())[0]

    @checked
    def prior_sample(self, shape: Shape, *, seed: int = 0, first_index: int = 0) -> Tensor:
        r"""Returns sequences of noise, with shape (B, L).

        Arguments:
            shape: The shape (B, L).
            seed: The seed.
            first_index: The index of the first sample.
        """

        count, length = shape_of(shape)
        index = torch.arange(count) + first_index
        u = keyed_uniform(seed, index, START, 0, length)
        return draw(self.noise.expand(count, length, -1), u)

    def marginal(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the law :math:`q_t(y \mid x)` of each symbol, with shape (B, L, S).

        Arguments:
            x: Clean symbols, with shape (B, L).
            t: The times, with shape (B,).
        """

        alpha, rest = (share[:, None, None] for share in self.shares(t))
        return alpha * one_hot(x, self.states) + rest * self.noise.to(rest)

    @checked
    def perturb(self, x: Tensor, t: Tensor, *, seed: int = 0, first_index: int = 0) -> Tensor:
        r"""Returns noisy symbols, with shape (B, L).

        Arguments:
            x: Clean symbols, with shape (B, L).
            t: The times, with shape (B,).
            seed: The seed.
            first_index: The index of the first sample.
        """

        x = as_symbols("x", x, self.vocabulary)
        t = self.checked_times(t, len(x)).to(x.device)
        index = torch.arange(len(x), device=x.device) + first_index
        u = keyed_uniform(seed, index, DATA_NOISE, 0, x.shape[1])
        return self.noised(x, t, u)

    def checked_times(self, t: object, count: int) -> Tensor:
        r"""Returns a time for each of some samples, with shape (B,), in float64."""

        times = as_times("t", t).double()
        low, high = self.t_min, self.t_max
        if times.shape != (count,) or not bool(((times >= low) & (times <= high)).all()):
            raise ValueError(
                f"t must hold {count} times from {low:.4g} to {high:.4g}, one per sample, but has shape "
                f"{tuple(times.shape)} and values such as {times.flatten()[:1].tolist()}."
            )
        return times

    def noised(self, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        r"""Returns noisy symbols from uniform numbers u, with shape (B, L)."""

        return draw(self.marginal(x, t), u)

    def known(self, symbols: Tensor, x: Tensor) -> Tensor:
        r"""Returns the probabilities of clean symbols, where those that x shows for certain are known.

        The shapes are (B, L, V), (B, L) and (B, L, V).
        """

        return symbols

    @abstractmethod
    def evidence(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the likelihood :math:`q_t(x \mid c)` of each clean symbol c, up to a factor.

        The shapes are (B, L) of `x`, (B,) of `t` and (B, L, V).
        """

    def speed(self, t: Tensor) -> Tensor:
        r"""Returns the factor of the reverse rates that depends on time alone, with the shape of `t`."""

        return self.fall(t) * self.speed_per_share(t.double())

    @abstractmethod
    def speed_per_share(self, t: Tensor) -> Tensor:
        r"""Returns :meth:`speed` in units of the share that the data lose, with the shape of `t`."""

    @abstractmethod
    def log_jumps(self, log_symbols: Tensor, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns logarithms of the reverse rates over :meth:`speed`, from those of clean symbols.

        The shapes are (B, L, V) of `log_symbols`, the logarithms of :math:`D_c`, (B, L) of `x`, (B,) of `t` and
        (B, L, V). A symbol does not jump to itself, and no symbol jumps to a mask.
        """

    @abstractmethod
    def log_jumps_of_ratios(self, log_ratios: Tensor, x: Tensor) -> Tensor:
        r"""Returns logarithms of the reverse rates over :meth:`speed`, from those of :math:`p_t(y) / p_t(x)`.

        The shapes are (B, L, V), (B, L) and (B, L, V).
        """

    @abstractmethod
    def symbols(self, log_jumps: Tensor, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the probabilities of clean symbols from :meth:`log_jumps`, with shape (B, L, V)."""

    @abstractmethod
    def posterior(self, symbols: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        r"""Returns the law of each symbol at s given x at t > s, with shape (B, L, S).

        It is :math:`\sum_c D_c \, q_{t|s}(x \mid y) \, q_s(y \mid c) / q_t(x \mid c)`.
        """


@checked
@dataclass(frozen=True)
class Absorbing(Chain):
    r"""Creates the chain that replaces symbols by a mask, the symbol V, for good.

    At t_max, all symbols are masks: what the schedule leaves of the data there, :math:`\alpha_{max}`, is taken
    away, so that the share is :math:`(\alpha - \alpha_{max}) / (1 - \alpha_{max})`.

    References:
        | Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., 2021), section 3.1
        | https://arxiv.org/abs/2107.03006

    Examples:
        >>> chain = ss.chains.Absorbing(27)
        >>> chain.perturb(torch.zeros(1, 8, dtype=torch.long), torch.tensor([0.5])).tolist()
        [[0, 0, 27, 0, 0, 0, 0, 27]]
    """

    @property
    def states(self) -> int:
        return self.vocabulary + 1

    @property
    def noise(self) -> Tensor:
        return one_hot(torch.tensor(self.vocabulary), self.states).double()

    @cached_property
    def _left(self) -> float:
        last = torch.tensor(self.t_max, dtype=torch.float64)
        return float(_sigmoid(2 * self.schedule.bare_call(last)))

    def evidence(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.where(self._masked(x), 1, one_hot(x, self.states)[..., :-1])

    def speed_per_share(self, t: Tensor) -> Tensor:
        return 1 / self.shares(t)[1]

    def log_jumps(self, log_symbols: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return torch.where(self._masked(x), log_symbols, -math.inf)

    def log_jumps_of_ratios(self, log_ratios: Tensor, x: Tensor) -> Tensor:
        return torch.where(self._masked(x), log_ratios.log_softmax(-1), -math.inf)

    def known(self, symbols: Tensor, x: Tensor) -> Tensor:
        return torch.where(self._masked(x), symbols, one_hot(x, self.states)[..., :-1].to(symbols))

    def symbols(self, log_jumps: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.known(log_jumps.exp(), x)

    def posterior(self, symbols: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        stay = (self.shares(s)[1] / self.shares(t)[1]).to(symbols)[:, None, None]
        moved = torch.cat([symbols * (1 - stay), stay.expand(*x.shape, 1)], -1)
        return torch.where(self._masked(x), moved, one_hot(x, self.states).to(moved))

    def _masked(self, x: Tensor) -> Tensor:
        return (x == self.vocabulary)[..., None]


@checked
@dataclass(frozen=True)
class Uniform(Chain):
    r"""Creates the chain that replaces symbols by any symbol, all equally likely.

    Its rates are infinite where no signal is left, so by default `t_max` is before that: at the share
    :math:`10^{-3} / \sqrt V` of the data, which tells less than 1e-6 nats of each symbol.

    References:
        | Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., 2021), section 3.1
        | https://arxiv.org/abs/2107.03006

    Examples:
        >>> chain = ss.chains.Uniform(27)
        >>> chain.perturb(torch.zeros(1, 8, dtype=torch.long), torch.tensor([0.5])).tolist()
        [[0, 0, 16, 0, 0, 0, 0, 22]]
        >>> round(chain.t_max, 6)
        0.999808
    """

    @property
    def states(self) -> int:
        return self.vocabulary

    @property
    def noise(self) -> Tensor:
        return torch.full((self.states,), 1 / self.states, dtype=torch.float64)

    @property
    def _end(self) -> float:
        share = SILENT / math.sqrt(self.vocabulary)
        log_snr = torch.tensor(math.log(share / (1 - share)) / 2, dtype=torch.float64)
        return min(self.schedule.domain[1], float(self.schedule.bare_inverse(log_snr)))

    def evidence(self, x: Tensor, t: Tensor) -> Tensor:
        return self.marginal(x, t)  # which is symmetric

    def speed_per_share(self, t: Tensor) -> Tensor:
        return 1 / (self.vocabulary * self.shares(t)[0])

    def log_jumps(self, log_symbols: Tensor, x: Tensor, t: Tensor) -> Tensor:
        weights = log_symbols.exp() / self.evidence(x, t).to(log_symbols)
        return self.log_jumps_of_ratios(self._mixed(weights, t).log(), x)

    def log_jumps_of_ratios(self, log_ratios: Tensor, x: Tensor) -> Tensor:
        return torch.where(one_hot(x, self.states).bool(), -math.inf, log_ratios)

    def symbols(self, log_jumps: Tensor, x: Tensor, t: Tensor) -> Tensor:
        logs = torch.where(one_hot(x, self.states).bool(), 0.0, log_jumps)
        ratios = (logs - logs.amax(-1, keepdim=True)).exp()  # whose common factor has no effect
        rest = self.shares(t)[1].to(ratios)[:, None, None]
        found = self.evidence(x, t).to(ratios) * (ratios - rest * ratios.mean(-1, keepdim=True))
        found = found.clamp(min=0)  # of a network whose ratios are not those of any law
        return found / found.sum(-1, keepdim=True)

    def posterior(self, symbols: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        kept = (self.shares(t)[0] / self.shares(s)[0]).to(symbols)[:, None, None]
        here = kept * one_hot(x, self.states) + (1 - kept) / self.states
        return here * self._mixed(symbols / self.evidence(x, t).to(symbols), s)

    def _mixed(self, weights: Tensor, t: Tensor) -> Tensor:
        r"""The sum of :math:`q_t(y \mid c)` over c with weights, for each y."""

        alpha, rest = (share.to(weights)[:, None, None] for share in self.shares(t))
        return alpha * weights + rest * weights.mean(-1, keepdim=True)


def padded(values: Tensor, states: int) -> Tensor:
    r"""Returns values of symbols as values of states, where those of a mask are 0."""

    return pad(values, (0, states - values.shape[-1]))


def _sigmoid(x: Tensor) -> Tensor:
    r"""The sigmoid, which is 0 and 1 at the infinite ends."""

    return torch.where(x.isinf(), (x > 0).to(x), sigmoid(x))
