r"""The noise level up to which the derivatives of a model can be trusted.

Guidance through a model multiplies by :math:`V = s^2 \, \partial D / \partial X`, the covariance of data given
its noisy state at the noise level s. For an exact model it is, on average, at most the covariance C of the data
(law of total variance). A network is trained for the values of D alone, so even a small error of its derivative
grows with :math:`s^2`, and at noise levels far above the data, V is nothing but that error.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.network_calls import uncounted
from solvers.shapes import align

from ..models.rows_check import check_rows
from ..models.score_model import ScoreModel
from ..oracles.mixture import Oracle
from .gradients import check_graph

EXCESS = 2.0  # times the data's covariance: beyond it, a derivative is mostly error
STEPS, ROWS, ENTRIES = (
    20,
    (8, 64),
    1024,
)  # of the check: the more entries per row, the fewer rows
HIGHEST = 1e4  # highest noise level at which the check starts
SEED = 0


@dataclass(frozen=True)
class Measured:
    r"""Creates the result of a check of a model's derivatives.

    Arguments:
        levels: The noise levels, in descending order, with shape (n,).
        sizes: The root mean square of :math:`|V v|` for random directions v of length 1, with shape (n,).
        data: The same for the covariance of the data, which by the law of total variance is that of the last
            estimates plus the last V.
        std: The standard deviation of the data.
    """

    levels: Tensor
    sizes: Tensor
    data: float
    std: float

    @property
    def level(self) -> float:
        r"""The noise level up to which V is not much larger than the covariance of the data."""

        trusted = (self.sizes <= EXCESS * self.data) | (self.levels <= self.std)
        if bool(trusted.all()):
            return math.inf
        first = int((~trusted).nonzero()[-1]) + 1  # below the lowest level where it is larger
        return float(self.levels[first]) if first < len(self.levels) else 0.0


def trusted_level(model: ScoreModel, x: Tensor, count: int) -> float:
    r"""Returns the noise level up to which guidance by gradients through a model makes sense.

    It is measured once per model, along a few of its own samples, and stored with its network. Exact models have
    no limit.

    Arguments:
        model: The model, with its conditions bound for some rows.
        x: A state, which sets shape, dtype and device.
        count: The number of these rows.
    """

    parts = list(model.parts.values())
    if parts:  # of a guided model, whose own estimates are not posterior means
        return min(trusted_level(part, x, count) for part in parts)
    leaves = [m for m in model.modules() if isinstance(m, ScoreModel) and not _holds_another(m)]
    if all(isinstance(leaf, Oracle) for leaf in leaves):
        return math.inf
    known: dict[object, float] = vars(leaves[0]).setdefault("trusted", {})
    key = (repr(model), tuple(x.shape[1:]), _version(model))
    if key not in known:
        check_rows(model, x)
        known[key] = measured(model, x, count).level
    return known[key]


def _holds_another(model: ScoreModel) -> bool:
    return any(isinstance(m, ScoreModel) for m in model.modules() if m is not model)


def _version(model: ScoreModel) -> int:
    r"""A number that changes whenever the weights change."""

    return sum(0 if p.is_inference() else p._version for p in model.parameters())


def measured(model: ScoreModel, x: Tensor, count: int) -> Measured:
    r"""Follows some samples from noise to data, by DDIM, and measures V along the way."""

    process, shape = model.process, tuple(x.shape[1:])
    high = min(process.noise_level(process.t_max), HIGHEST)
    low = process.noise_level(process.start_of("sampling"))
    levels = torch.logspace(math.log10(high), math.log10(low), STEPS, dtype=torch.float64)
    rows = 2 * (min(max(ENTRIES // math.prod(shape), ROWS[0]), ROWS[1]) // 2)
    model = model.rows(torch.arange(rows) % count)
    generator = torch.Generator().manual_seed(SEED)

    def normal() -> Tensor:
        return torch.randn((rows, *shape), generator=generator, dtype=torch.float64).to(x)

    X, D, sizes = high * normal(), None, list[Tensor]()
    times = process.time(-levels.log())
    alphas = process.scales(times)[0].tolist()
    ratios = (torch.cat([levels[1:], levels.new_zeros(1)]) / levels).tolist()
    with uncounted():
        for t, s, alpha, ratio in zip(times, levels.tolist(), alphas, ratios, strict=True):
            v = normal()
            found, product = _product(model, X, alpha, t, v / align(v.flatten(1).norm(dim=1), v))
            if not bool(found.isfinite().all() & product.isfinite().all()):
                break  # as can happen to networks at the very end
            D, X = found, found + ratio * (X - found)
            sizes.append(s**2 * product.flatten(1).double().square().sum(1).mean().sqrt())
    if D is None:
        return Measured(levels[:0], levels[:0], 0.0, 0.0)  # the run will report the problem
    seen, variance = _spread(D.double().flatten(1))
    left = float(sizes[-1])
    known = torch.stack(sizes).cpu()
    return Measured(levels[: len(known)], known, seen + left, math.sqrt(variance + left))


def _product(
    model: ScoreModel, X: Tensor, alpha: float, t: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The denoised data, and the product of a vector with its derivative with respect to X."""

    with torch.enable_grad():
        leaf = X.detach().requires_grad_()
        D = model.denoise(alpha * leaf, t)
    check_graph(model, D)
    return D.detach(), torch.autograd.grad(D, leaf, v)[0]


def _spread(x: Tensor) -> tuple[float, float]:
    r"""The root mean square of :math:`|C v|` for random v, and the variance, of the law of given samples.

    The scaled differences of two pairs are independent and centred with covariance C, so the mean square of
    their inner products is an unbiased estimate of tr C^2.
    """

    apart = (x[::2] - x[1::2]) / 2**0.5
    inner = apart @ apart.T
    others = ~torch.eye(len(apart), dtype=torch.bool, device=x.device)
    square = inner[others].square().mean() / x.shape[1]
    return float(square.sqrt()), float(apart.square().mean())
