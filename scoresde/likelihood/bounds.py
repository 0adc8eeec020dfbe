r"""Evidence lower bounds of the log-density, in continuous time or in steps.

Noise is added to the data at the noise level :math:`s_0`: :math:`y = x + r z` with
:math:`r^2 = s^2 - s_0^2`. With the predicted noise :math:`e = (y - D(y)) / s`,

.. math:: \log p_{s_0}(x) \geq \mathbb{E} \log p_{s_1}(y_1)
    - \int \mathbb{E} \big[ |e|^2 - 2 \tfrac{s}{r} \, e \cdot z \big] \, du ,

with equality for exact scores. In T steps, with the prediction
:math:`\hat x = y - r^2 e / s` of the data, the integral becomes a sum over
:math:`\frac{1}{2} (r_{k-1}^{-2} - r_k^{-2}) \, \mathbb{E} |x - \hat x|^2`. Both have the form
:math:`a |e|^2 - 2 b \, e \cdot z + c \, |z|^2`, whose expectation is known for the Gaussian companion.

References:
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), theorem 3
    | https://arxiv.org/abs/2101.09258
    | Variational Diffusion Models (Kingma et al., 2021), equations (11) to (15)
    | https://arxiv.org/abs/2107.00630
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from solvers.noise.brownian import LEVELS, START, keyed_normal, keyed_uniform
from solvers.shapes import align

from ..models.checks import check_count
from ..models.conditions import Condition, verb
from ..models.masked import masked_of, refuse_mask
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..processes.process import Process
from ..runs.grids import grid_times
from ..runs.options import SEED, Gradients, Seeds
from .batches import FREE, Asked, Batch, ask_freely
from .companion import Companion
from .integral import denoisers
from .nodes import base_density, place, table
from .students import error_of_mean

NODES, DRAWS = 8, 16


class Bound(NamedTuple):
    r"""An estimate of a log-density, or of a bound.

    Arguments:
        nats: The estimate, with shape (B,), in float64.
        stderr: Its standard error, with shape (B,), widened for few or skewed draws, so that the interval of two
            standard errors covers the true mean in about 95 % of cases; NaN for a single draw.
        calls: The network calls per sample.

    Examples:
        >>> bound = ss.elbo(model, torch.zeros(3, 2))
        >>> bound.nats.shape, bound.stderr.shape
        (torch.Size([3]), torch.Size([3]))
    """

    nats: Tensor
    stderr: Tensor
    calls: int

    def __repr__(self) -> str:
        return (
            f"Bound({len(self.nats)} samples, mean {self.nats.mean():.4g} nats, each within a standard error of "
            f"{self.stderr.nanmean():.2g}, {self.calls} calls per sample)"
        )


class Form(NamedTuple):
    r"""Nodes of one draw, their weights, and the coefficients a, b, c, each with shape (n, B)."""

    u: Tensor
    weights: Tensor
    a: Tensor
    b: Tensor
    c: Tensor


class Measure(Protocol):
    r"""An integral or a sum over noise levels."""

    def draw(self, count: int, offset: Tensor) -> Form:
        r"""Returns stratified nodes, whose weighted mean over offsets is the integral."""

    def whole(self) -> Form:
        r"""Returns all nodes that the companion's part needs, with shape (n, 1)."""


@verb(data=("x",))
def elbo(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    steps: int | None = None,
    nodes: int = NODES,
    draws: int = DRAWS,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Bound:
    r"""Returns the evidence lower bound of the log-density of data at `t_min`.

    It needs no divergence. For the exact score, it equals the density of the flow; the gap shows how far the
    model's score is from an exact one.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        steps: The number of steps, even in t, of an ancestral sampler, to get its bound. By default, the bound
            is that in continuous time.
        nodes: The number of noise levels per draw, which are stratified.
        draws: The number of draws. Each consists of antithetic pairs, and takes 2 x nodes calls.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that a
            bound without a path depends on.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.

    Examples:
        >>> bound = ss.elbo(model, torch.zeros(1, 2))
        >>> round(float(bound.nats), 2)  # that of the density for an exact score: - log(2 pi 0.25)
        -0.45
    """

    options = FREE.said(locals())
    nodes, draws = check_count("nodes", nodes, at_least=1), check_count("draws", draws, at_least=1)
    steps = check_count("steps", steps, at_least=2)
    if steps is not None:
        refuse_mask(model, "the bound of a sampler", "ss.log_likelihood, or ")
    asked = ask_freely(model, x, options)
    measure = _Integral(asked) if steps is None else _Sum(asked, steps)
    with asked.settings.gradients():
        values = torch.cat(
            [_draws(asked, batch, measure, nodes, draws) for batch in asked.batches()], 1
        )
        whole = measure.whole()
        known = _end(asked) - _companions(asked, whole)
    if steps is not None:
        known = known + _entropies(asked, whole.u[0])
    return Bound(
        known - values.mean(0) - asked.units,
        error_of_mean(values),
        2 * nodes * draws * asked.model.cost,
    )


@dataclass(frozen=True)
class _Integral:
    asked: Asked

    def draw(self, count: int, offset: Tensor) -> Form:
        u = table(*self.asked.ends)
        nodes = place(u, base_density(self.asked.companion, u), count, offset)
        return self._form(nodes.u, nodes.weights)

    def whole(self) -> Form:
        u = table(*self.asked.ends)
        middle = (u[1:] + u[:-1]) / 2
        return self._form(middle[:, None], torch.full_like(middle, float(u[1] - u[0]))[:, None])

    def _form(self, u: Tensor, weights: Tensor) -> Form:
        ratio = torch.exp(u) / added(u, self.asked.ends[0])
        return Form(u, weights, torch.ones_like(u), ratio, torch.zeros_like(u))


@dataclass(frozen=True)
class _Sum:
    asked: Asked
    steps: int

    def draw(self, count: int, offset: Tensor) -> Form:
        levels, chances = self._levels(), self._chances()
        bounds = chances.cumsum(0)
        quantiles = (torch.arange(count, dtype=torch.float64)[:, None] + offset) / count
        k = torch.searchsorted(bounds, quantiles * bounds[-1]).clamp(max=self.steps - 1)
        return Form(
            *(value[k] for value in self._form(levels, 1 / (count * chances / bounds[-1])))
        )

    def whole(self) -> Form:
        levels = self._levels()
        return Form(*(value[:, None] for value in self._form(levels, torch.ones_like(levels))))

    def _levels(self) -> Tensor:
        process = self.asked.model.process
        times = grid_times(process, "t", self.asked.start, process.t_max, self.steps)
        return -process.log_snr(times[1:])

    def _chances(self) -> Tensor:
        r"""The probability of each level: partly by the change of the companion's trace, and partly even."""

        u = torch.cat([torch.tensor(self.asked.ends[:1]).double(), self._levels()])
        density = self.asked.companion.change((u[1:] + u[:-1]) / 2).sqrt() * (u[1:] - u[:-1])
        even = torch.ones_like(density) / self.steps
        return 0.5 * density / density.sum() + 0.5 * even

    def _form(self, u: Tensor, weights: Tensor) -> Form:
        r = added(u, self.asked.ends[0])
        before = torch.cat([torch.full_like(r[:1], torch.inf), 1 / r[:-1] ** 2])
        share = torch.where(before.isinf(), 1 / r**2, before - 1 / r**2) / 2
        ratio = r / torch.exp(u)
        c = share * r**2
        return Form(u, weights, c * ratio**2, c * ratio, c)


def _draws(asked: Asked, batch: Batch, measure: Measure, nodes: int, draws: int) -> Tensor:
    r"""The model's terms minus the companion's, with shape (draws, B)."""

    return torch.stack([_draw(asked, batch, measure, nodes, number) for number in range(draws)])


def _draw(asked: Asked, batch: Batch, measure: Measure, nodes: int, number: int) -> Tensor:
    x, first = batch.x, asked.ends[0]
    offset = keyed_uniform(batch.seed, batch.number, LEVELS, number, 1)[:, 0].cpu()
    form = measure.draw(nodes, offset)
    fields = denoisers(batch.model, form.u, x)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for j, (field, u) in enumerate(zip(fields, form.u, strict=True)):
        counter = number * nodes + j
        z = keyed_normal(batch.seed, batch.number, START, counter + 2**20, asked.dimension)
        z = z.to(x).reshape(x.shape)
        s, r = (align(v.to(x), x) for v in (torch.exp(u), added(u, first)))
        a, b = (v[j].to(total) for v in (form.a, form.b))
        for sign in (1, -1):
            y = x + sign * r * z
            e = ((y - field(y)) / s).flatten(1).double()
            own = _gaussian_noise(asked.companion, y, u)
            flat = sign * z.flatten(1).double()
            square = e.square().sum(1) - own.square().sum(1)
            product = (e * flat).sum(1) - (own * asked.companion.split(sign * z[None])[0]).sum(1)
            total = total + form.weights[j].to(total) * (a * square - 2 * b * product) / 2
    return total


def _gaussian_noise(companion: Companion, y: Tensor, u: Tensor) -> Tensor:
    r"""The noise that the companion predicts, in its coordinates."""

    u = u.to(y.device)
    rest = 1 - companion.gains(u)
    return rest * companion.split((y - companion.moments.mean)[None])[0] / torch.exp(u)[:, None]


def _companions(asked: Asked, form: Form) -> Tensor:
    r"""The companion's expectation of all terms, with shape (B,)."""

    companion, u = asked.companion, form.u[:, 0]
    rest, s = 1 - companion.gains(u), torch.exp(u)[:, None]
    r = added(u, asked.ends[0])[:, None]
    counts = companion.counts
    x = asked.x - companion.moments.mean
    square = companion.split(x[None])[0].square().cpu()
    a, b, c, weights = (value[:, 0] for value in (form.a, form.b, form.c, form.weights))
    of_data = ((weights * a)[:, None] * (rest / s) ** 2).sum(0)
    noise = a[:, None] * (rest * r / s) ** 2 - 2 * b[:, None] * rest * r / s
    known = (weights * ((noise * counts).sum(1) + c * asked.dimension)).sum()
    return (square @ of_data + known).to(asked.x.device)


def _end(asked: Asked) -> Tensor:
    r"""The expected log-density of the prior, or of their own law where entries do not exist, with shape (B,)."""

    process, part = asked.model.process, masked_of(asked.model)
    last = added(torch.tensor(asked.ends[1]).double(), asked.ends[0]).item()
    square = asked.x.flatten(1).double().square().sum(1)
    known = expected_prior(process, square, asked.dimension, last)
    if part is None:
        return known
    own = part.scale**2 + math.exp(2 * asked.ends[1])
    each = -expected_prior(process, torch.zeros(()).double(), 1, last).item()
    return known + part.absent(asked.x) * (
        each - (last**2 / own + math.log(2 * math.pi * own)) / 2
    )


def expected_prior(process: Process, square: Tensor, dimension: int, noise: float) -> Tensor:
    r"""Returns the expected log-density of the prior at data with noise, in units of the data, with shape (B,).

    Arguments:
        process: The process.
        square: The sum of the squares of each sample, with shape (B,).
        dimension: The number of dimensions.
        noise: The standard deviation of the noise.
    """

    std = process.prior_std() / process.signal(torch.tensor(process.t_max).double()).item()
    each = noise**2 / (2 * std**2) + math.log(std * math.sqrt(2 * math.pi))
    return -square / (2 * std**2) - dimension * each


def _entropies(asked: Asked, u: Tensor) -> Tensor:
    r"""The entropy of the noise at the end, minus the log of the Gaussian that decodes the first step."""

    ends = torch.stack([u[0], torch.tensor(asked.ends[1], dtype=torch.float64)])
    low, high = added(ends, asked.ends[0]).log()
    return asked.dimension * (high - low + 0.5)


def added(u: Tensor, first: float) -> Tensor:
    r"""The noise added since the first noise level."""

    return (torch.exp(2 * u) - math.exp(2 * first)).clamp(min=0).sqrt()
