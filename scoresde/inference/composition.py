r"""Posteriors of several independent observations, composed of the posteriors of each.

By Bayes' rule, with the prior :math:`p(\theta)`,

.. math:: p(\theta \mid x_1, \dots, x_n) \propto p(\theta)^{1 - n} \prod_i p(\theta \mid x_i) ,

and the same holds for the parameters given their noisy state, since the noise does not depend on observations:

.. math:: p(\theta \mid \theta_t, x_1, \dots, x_n)
    \propto p(\theta \mid \theta_t)^{1 - n} \prod_i p(\theta \mid \theta_t, x_i) .
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from solvers import count_call, counting
from solvers.doors.values import Array

from ..doors.data import as_floats
from ..models.checks import check_count
from ..models.conditions import Bound, Condition, rows_of, spread, verb
from ..models.data_moments import Moments
from ..models.masked import refuse_mask
from ..models.score_model import ScoreModel
from ..models.times import check_time
from ..runs.options import Options
from ..runs.takes import check_model
from .draws import draw, observed

SOLVER, STEPS = (
    "unipc_3",
    40,
)  # whose variances are exact to a fraction of a percent: errors of 1 % matter for many


@verb
def factors(
    model: ScoreModel, prior: ScoreModel, **condition: Condition
) -> tuple[list[ScoreModel], list[float]]:
    r"""Returns the models and exponents whose product is the posterior of all observations.

    :func:`scoresde.weighted_sample` draws from it without the approximation of :func:`iid`: its weighted samples
    are exact as steps and samples become many. Weights become uneven as observations become many.

    Arguments:
        model: The posterior of one observation.
        prior: The prior, as a model of the same process.
        condition: The conditions of the model, each with leading size n or 1: an observation in each row.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> models, exponents = ss.inference.factors(pair, pair, label=torch.tensor([1, 1, 0]))
        >>> exponents
        [-2.0, 1.0, 1.0, 1.0]
    """

    bound, n = _checked(model, prior, condition)
    rows = [rows_of(bound, torch.tensor([i])) for i in range(n)]
    each = [model.given(**row) for row in rows]  # type: ignore[arg-type]
    return [prior, *each], [1.0 - n, *[1.0] * n]


@verb
def iid(
    model: ScoreModel,
    prior: ScoreModel,
    *,
    covariances: Array | None = None,
    draws: int = 1000,
    seed: int = 0,
    at_once: int | None = None,
    **condition: Condition,
) -> ScoreModel:
    r"""Returns the posterior of several independent observations, composed of the posterior of one.

    The sum of scores with the exponents of Bayes' rule is not the score of noisy parameters, since adding noise
    does not commute with products. Here, parameters given their noisy state are taken for normal, with the
    covariances :math:`(C_i^{-1} + s^{-2})^{-1}` of normal posteriors with covariance :math:`C_i` at the noise
    level s. Then, with :math:`b_0 = 1 - n` for the prior and :math:`b_i = 1` for the observations,

    .. math:: D = \Lambda^{-1} \sum_{i = 0}^n b_i \, (C_i^{-1} + s^{-2}) \, D_i , \qquad
        \Lambda = \sum_{i = 0}^n b_i \, C_i^{-1} + s^{-2} ,

    which is exact for normal priors and posteriors, and otherwise at small noise. Variances of a posterior beyond
    those of the prior are cut to them, so that :math:`\Lambda` is positive. Parameters become finer with the
    number of observations, so take more steps for many.

    Arguments:
        model: The posterior of one observation.
        prior: The prior, as a model of the same process, such as :class:`scoresde.GaussianOracle` or
            :class:`scoresde.UniformOracle`.
        covariances: The covariances :math:`C_i`, with shape (n, d, d), or (1, d, d) for all. By default, they are
            estimated from samples of each posterior, which costs `draws` samples for each observation, in one run.
            That of the prior is known if it has `moments`, and estimated in the same way otherwise.
        draws: The number of these samples.
        seed: Their seed.
        at_once: The number of observations in one call of the network, as n times the rows of the state. By
            default, all of them; fewer take less memory.
        condition: The conditions of the model, each with leading size n or 1: an observation in each row.

    Raises:
        ValueError: If an argument is invalid, or `draws` are too few for a covariance.

    References:
        | Diffusion Posterior Sampling for Simulation-Based Inference in Tall Data Settings (Linhart et al., 2024),
        | section 3, for GAUSS
        | https://arxiv.org/abs/2404.07593
        | Compositional Score Modeling for Simulation-based Inference (Geffner et al., 2023), section 3
        | https://arxiv.org/abs/2209.14249

    Examples:
        >>> prior = ss.GaussianOracle(torch.zeros(1), 1.0)
        >>> half = ss.MixtureOracle(torch.tensor([[-0.5], [0.5]]), 0.5**0.5)  # N(x / 2, 1 / 2) for x = -1 and 1
        >>> both = ss.inference.iid(half, prior, covariances=[[[0.5]]], label=torch.tensor([1, 1]))
        >>> both.denoise(torch.zeros(1, 1), torch.tensor([80.0])).round(decimals=2), both.cost  # 2 / (1 + 2)
        (tensor([[0.6700]]), 3)
    """

    bound, n = _checked(model, prior, condition)
    at_once = n if at_once is None else check_count("at_once", at_once, at_least=1)
    d, draws = math.prod(model.shape or ()), check_count("draws", draws, at_least=1)
    check_count("seed", seed, at_least=None)
    given = None if covariances is None else _checked_covariances(covariances, n, d)
    if n == 1:
        return model.given(**bound)  # type: ignore[arg-type]
    if (given is None or prior.moments is None) and draws < d + 3:
        raise ValueError(f"draws must be at least {d + 3} for {d} parameters, but is {draws}.")
    if prior.moments is None:
        first = _precisions(prior, draws, seed, {})[0]
    else:
        first = torch.linalg.inv(_covariance(prior.moments))
    own = _precisions(model, draws, seed, bound) if given is None else torch.linalg.inv(given)
    return Composed(model, prior, bound, _at_least(first, own).expand(n, -1, -1), first, at_once)


class Composed(ScoreModel):
    r"""Creates the model of :func:`iid`, from precisions in float64, with shapes (n, d, d) and (d, d)."""

    def __init__(
        self,
        posterior: ScoreModel,
        prior: ScoreModel,
        bound: Mapping[str, Bound],
        precisions: Tensor,
        first: Tensor,
        at_once: int,
    ) -> None:
        super().__init__()
        self.posterior, self.prior, self.bound, self.at_once = (
            posterior,
            prior,
            dict(bound),
            at_once,
        )
        self.resemble(posterior)
        n = len(precisions)
        self.precisions = torch.nn.Buffer(precisions, persistent=False)
        self.first = torch.nn.Buffer((1 - n) * first, persistent=False)
        total, axes = torch.linalg.eigh(self.first + precisions.sum(0))
        self.total, self.axes = (torch.nn.Buffer(part, persistent=False) for part in (total, axes))
        self.cost, self.guided, self.moments = n * posterior.cost + prior.cost, True, None
        self.differentiable = posterior.differentiable and prior.differentiable
        self.data_scale = posterior.data_scale if prior.data_scale is None else prior.data_scale
        self.finest = float(total.max()) ** -0.5
        self.conditions, self.bound_names = (), (*posterior.bound_names, *bound)
        name = posterior.fingerprint or type(posterior).__name__
        self.fingerprint = f"{name} composed of {n} observations"

    def __repr__(self) -> str:
        return f"iid({self.posterior!r}, {self.prior!r}, of {len(self.precisions)} observations)"

    def rows(self, index: Tensor) -> ScoreModel:
        return self  # all rows share the observations

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        t = check_time(self.process, t, x)
        alpha, sigma = self.process.scales(t)
        variance = (sigma / alpha).square().reshape(-1, 1).to(self.total)
        n = len(self.precisions)
        plain = (1 - n) * self.prior.denoise(x, t).double().flatten(1)
        bent = plain / (1 - n) @ self.first
        for part in torch.arange(n).split(self.at_once):
            D = self._each(x, t, part)
            plain = plain + D.sum(1)
            bent = bent + torch.einsum("bnd,nde->be", D, self.precisions[part])
        along = (plain + variance * bent) @ self.axes / (1 + variance * self.total)
        return (along @ self.axes.T).reshape(x.shape).to(x)

    def _each(self, x: Tensor, t: Tensor, part: Tensor) -> Tensor:
        r"""The denoised data of some observations, with shape (B, n, d) in float64, in one call of the network."""

        many = x.repeat_interleave(len(part), 0)
        times = t.expand(len(x)).repeat_interleave(len(part))
        condition = spread(rows_of(self.bound, part.repeat(len(x))), many)
        with counting() as counter:
            D = self.posterior.denoise(many, times, **condition)  # type: ignore[arg-type]
        count_call(len(part) * counter.total)
        return D.double().reshape(len(x), len(part), -1)


def _checked(
    posterior: ScoreModel, prior: ScoreModel, condition: Mapping[str, object]
) -> tuple[dict[str, Bound], int]:
    r"""The conditions of the posterior, and the number of observations."""

    check_model(posterior)
    refuse_mask(posterior, "a product of posteriors")
    if not isinstance(prior, ScoreModel):
        raise TypeError(
            f"prior must be a ScoreModel, such as ss.UniformOracle(low, high, process), but is a "
            f"{type(prior).__name__}."
        )
    if not condition:
        names = (
            ", ".join(f"{name}=" for name in posterior.conditions) or "none, so it is no posterior"
        )
        raise ValueError(
            f"observations are missing: pass the condition of the posterior, {names}."
        )
    if prior.transform is not None:
        raise ValueError(
            "prior must be a model of the states of the posterior; set prior.transform = None."
        )
    if prior.process != posterior.process:
        raise ValueError(
            f"prior must have the process of the posterior, {posterior.process}, but has {prior.process}."
        )
    bound, n = observed(posterior, condition)
    if posterior.shape is None:
        raise ValueError(
            "the posterior does not know the shape of a sample; pass shape= to ss.NetworkScore."
        )
    if prior.shape not in (None, posterior.shape):
        raise ValueError(
            f"prior must have samples of shape {posterior.shape}, but has {prior.shape}."
        )
    return bound, n


def _checked_covariances(covariances: Array, n: int, d: int) -> Tensor:
    r"""The covariances in float64, with shape (n, d, d) or (1, d, d)."""

    found = as_floats("covariances", covariances, dtype=torch.float64)
    if found.shape not in ((n, d, d), (1, d, d)):
        raise ValueError(
            f"covariances must have shape ({n}, {d}, {d}) or (1, {d}, {d}), but have {tuple(found.shape)}."
        )
    if not torch.allclose(found, found.mT) or not bool((torch.linalg.eigvalsh(found) > 0).all()):
        raise ValueError("covariances must be symmetric and positive, but are not.")
    return found


def _covariance(known: Moments) -> Tensor:
    r"""The covariance of data with known moments, with shape (d, d), in float64."""

    d, variances = known.mean.numel(), known.variances.double()
    axes = torch.eye(d).to(variances) if known.basis is None else known.basis.double()
    rest = (torch.eye(d).to(axes) - axes @ axes.T) * (known.rest or 0.0)
    return axes @ torch.diag(variances) @ axes.T + rest


def _precisions(model: ScoreModel, draws: int, seed: int, bound: Mapping[str, Bound]) -> Tensor:
    r"""Inverse covariances estimated from samples, with shape (n, d, d), without the bias of the inverse."""

    options: Options = {"solver": SOLVER, "steps": STEPS, "seed": seed, **bound}
    x = draw(model, draws, **options).samples.double().flatten(2)
    apart, d = x - x.mean(1, keepdim=True), x.shape[2]
    return (draws - d - 2) * torch.linalg.inv(apart.mT @ apart)


def _at_least(first: Tensor, precisions: Tensor) -> Tensor:
    r"""The precisions, raised to that of the prior where they are below it."""

    root = torch.linalg.cholesky(torch.linalg.inv(first)).to(precisions)
    values, vectors = torch.linalg.eigh(root.mT @ precisions @ root)
    back = torch.linalg.inv(root).mT @ vectors
    return back @ (values.clamp(min=1)[..., None] * back.mT)
