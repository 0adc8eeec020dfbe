r"""A lower bound on the probability of symbols."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.noise.brownian import DEQUANTIZE, LEVELS, START, keyed_normal, keyed_uniform
from solvers.shapes import align

from ..likelihood.batches import FREE, Asked, Batch, ask_freely
from ..likelihood.bounds import Bound
from ..likelihood.integral import denoisers
from ..likelihood.nodes import place, table
from ..likelihood.students import error_of_mean
from ..models.checks import check_count
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.options import SEED, Seeds
from .chances import form_of, log_probabilities
from .form import Symbols

NODES, DRAWS = 8, 16
CERTAIN = 16.0  # deviations of the noise between two codes, which are confused with a probability of 1e-15
EVEN = 0.2  # of the density of noise levels is even


@verb(data=("x",))
def elbo(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    nodes: int = NODES,
    draws: int = DRAWS,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Bound:
    r"""Returns a lower bound on the log-probability of symbols.

    With the code e of the symbols k, its noisy states :math:`y_s = e + s z` at the noise level s, the log u of s
    from :math:`u_0` at `t_min` to :math:`u_1` at `t_max`, and the prior p,

    .. math:: \log P(k) \geq \mathbb{E} \log P(k \mid y_{s_0}) - \int_{u_0}^{u_1} \mathbb{E}
        \frac{|D(y_s) - e|^2}{s^2} \, du - \mathrm{KL} \big( q(x_1 \mid e) \, \| \, p \big) ,

    where P(k | y) is the product of the probabilities of each symbol. For exact scores and symbols that are
    independent given the state at `t_min`, it is an equality, up to the difference between the law of the noisy
    data at `t_max` and the prior.

    Arguments:
        model: The score model, whose transform is a :class:`scoresde.symbols.Symbols`.
        x: Symbols, with shape (B, *).
        nodes: The number of noise levels per draw, which are stratified, most of them where symbols are confused.
        draws: The number of draws. Each takes one call per node, and one for the reconstruction.
        t_min: The time of the reconstruction. By default, the noise there is a 16th of the smallest distance
            between two codes, or that of :func:`scoresde.elbo`, if this is larger.
        condition: The conditions of the model. The other options are those of :func:`scoresde.elbo`.

    Returns:
        The bound in nats with its standard error, which is NaN for a single draw.

    Raises:
        TypeError, ValueError: If the data of the model are no symbols, or an option is invalid.

    References:
        | Variational Diffusion Models (Kingma et al., 2021), equations (11) and (17)
        | https://arxiv.org/abs/2107.00630

    Examples:
        >>> bits = ss.symbols.Bits(2, shape=(1,))
        >>> codes, chances = bits.inside("x", torch.tensor([[0], [1]])), torch.tensor([0.75, 0.25])
        >>> pair = ss.MixtureOracle(codes, 1e-4, chances)
        >>> pair.transform = bits
        >>> bound = ss.symbols.elbo(pair, torch.tensor([[0]]), draws=64)
        >>> abs(float(bound.nats.exp()) - 0.75) < 0.05
        True
    """

    form = form_of(model)
    options = FREE.said(locals())
    nodes, draws = check_count("nodes", nodes, at_least=1), check_count("draws", draws, at_least=1)
    if t_min is None and sigma_min is None:
        options["t_min"] = _start(model, form)
    asked = ask_freely(model, x, options)
    terms = _Terms(asked, form, nodes)
    values = torch.cat([
        torch.stack([terms.of(draw, batch) for draw in range(draws)], 0)
        for batch in asked.batches()
    ], 1)  # fmt: skip
    found = values.mean(0) - terms.prior()
    return Bound(found, error_of_mean(values), (nodes + 1) * draws * asked.model.cost)


def _start(model: ScoreModel, form: Symbols) -> float:
    r"""The time at which the noise is so small that symbols can be read off."""

    process, level = model.process, form.distance / CERTAIN
    start = process.start_of("likelihood")
    return (
        max(start, process.at_noise_level(level)) if level > process.noise_level(start) else start
    )


@dataclass(frozen=True)
class _Terms:
    r"""The random terms of the bound."""

    asked: Asked
    form: Symbols
    nodes: int

    @torch.no_grad()
    def of(self, draw: int, batch: Batch) -> Tensor:
        r"""Returns log P(k | y) minus the sum over noise levels of one draw, with shape (B,)."""

        return self._reconstruction(draw, batch) - self._errors(draw, batch)

    def _reconstruction(self, draw: int, batch: Batch) -> Tensor:
        x, level = batch.x, math.exp(self.asked.ends[0])
        z = keyed_normal(batch.seed, batch.number, DEQUANTIZE, draw, x[0].numel())
        t = torch.tensor(self.asked.start, dtype=torch.float64)
        alpha = float(batch.model.process.signal(t))
        y = alpha * (x + level * z.to(x).reshape(x.shape))
        logs = log_probabilities(batch.model, y, t.to(y))
        return logs.gather(-1, self.form.outside(x)[..., None]).flatten(1).sum(1)

    def _errors(self, draw: int, batch: Batch) -> Tensor:
        x, (first, last) = batch.x, self.asked.ends
        offset = keyed_uniform(batch.seed, batch.number, LEVELS, draw, 1)[:, 0].cpu()
        places = table(first, last)
        found = place(places, confusion(places, self.form.distance)[:, None], self.nodes, offset)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for j, field in enumerate(denoisers(batch.model, found.u, x)):
            counter = draw * self.nodes + j + 2**20
            z = keyed_normal(batch.seed, batch.number, START, counter, x[0].numel())
            s = align(found.u[j].exp().to(x), x)
            apart = (field(x + s * z.to(x).reshape(x.shape)) - x) / s
            total = total + found.weights[j].to(total) * apart.double().square().flatten(1).sum(1)
        return total

    def prior(self) -> Tensor:
        r"""Returns the divergence of the noisy code at `t_max` from the prior, with shape (B,)."""

        process, x = self.asked.model.process, self.asked.x.flatten(1).double()
        scales = process.scales(torch.tensor(process.t_max, dtype=torch.float64))
        (alpha, sigma), std = map(float, scales), process.prior_std()
        each = (alpha**2 * x.square() + sigma**2) / (2 * std**2) - 0.5 + math.log(std / sigma)
        return each.sum(1)


def confusion(u: Tensor, distance: float) -> Tensor:
    r"""Returns the density of noise levels at which the errors of symbols are looked at, with the shape of `u`.

    Two codes at a distance d are confused at the level s with about the probability :math:`e^{-d^2 / 8 s^2}`, and
    then add :math:`d^2 / s^2` to the integrand, whose root mean square is the density, beside an even part.

    Arguments:
        u: The logs of noise levels, evenly spaced, with shape (T,).
        distance: The smallest distance between two codes.
    """

    inverse = torch.exp(-2 * u)
    found = inverse * torch.exp(-(distance**2) / 16 * inverse)
    return (1 - EVEN) * found / found.sum().clamp(min=torch.finfo(found.dtype).tiny) + EVEN / len(
        u
    )
