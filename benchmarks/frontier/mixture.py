r"""Mixture coordinates: the denoised data of a mixture of Gaussians is taken off before values are extrapolated.

With k components of low rank, fitted to data, and R the rest of the denoised data, a step solves

.. math:: dX = (D_{mix}(X, \lambda) - X + R) \, d\lambda

by the method of Runge and Kutta, which takes no calls. R is extrapolated in the coordinates of the moments by the
coefficients of Adams and Bashforth. "free" takes R to be 0 at t_max, which saves the first call. One component is
`moment_ipndm_2` or `moment_ipndm_3`.
"""

import math
from functools import cache, partial

import torch
from sklearn.cluster import KMeans
from torch import Tensor

import scoresde as ss
from scoresde.training.digits_data import digits

from .tools import levels

ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12))
ROUNDS, INNER, LEAST = 60, 0.2, 1e-4


class Fit:
    r"""A mixture of k Gaussians, each with its first principal axes and one variance for all others, by EM."""

    def __init__(self, data: Tensor, k: int, rank: int) -> None:
        x = data.flatten(1).double()
        self.known = ss.moments(data)
        labels = torch.from_numpy(KMeans(k, n_init=4, random_state=0).fit(x.numpy()).labels_)
        share = torch.nn.functional.one_hot(labels.long(), k).double()
        for _ in range(ROUNDS if k > 1 else 1):
            weights = share.sum(0).clamp(min=1e-6)
            self.log_weights, self.means = (weights / len(x)).log(), share.T @ x / weights[:, None]
            centred = (x - self.means[:, None]) * share.T[..., None].sqrt()
            values, axes = torch.linalg.eigh(centred.mT @ centred / weights[:, None, None])
            self.rest = values[:, :-rank].mean(1).clamp(min=LEAST)
            self.axes = axes[..., -rank:]
            self.values = torch.maximum(values[:, -rank:], self.rest[:, None])
            share = self.compared(x, 0.0)[0]

    def compared(self, X: Tensor, level: float) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the shares of the components, and differences from their means, also along their axes."""

        off = X[:, None] - self.means
        along = torch.einsum("bkd,kdr->bkr", off, self.axes)
        total, rest = self.values + level**2, self.rest + level**2
        away = off.square().sum(-1) - along.square().sum(-1)
        log = (X.shape[1] - total.shape[1]) * rest.log() + total.log().sum(-1)
        log = log + away / rest + (along.square() / total).sum(-1)
        return (self.log_weights - log / 2).softmax(1), off, along

    def denoised(self, X: Tensor, level: float) -> Tensor:
        share, off, along = self.compared(X, level)
        rest = (self.rest / (self.rest + level**2))[:, None]
        gain = (self.values / (self.values + level**2) - rest) * along
        each = self.means + rest * off + torch.einsum("kdr,bkr->bkd", self.axes, gain)
        return torch.einsum("bk,bkd->bd", share, each)


@cache
def fitted(model: ss.ScoreModel, k: int, rank: int) -> Fit:
    data = model.data(2000, seed=5) if isinstance(model, ss.Oracle) else digits("train").images
    return Fit(data, k, rank)


def moved(fit: Fit, X: Tensor, N: Tensor, start: float, stop: float) -> Tensor:
    r"""Returns the state after a step with a constant remainder N, in the coordinates of the moments."""

    known = fit.known.like(X)
    mean, variances = known.mean.flatten(), known.coordinates.to(X)

    def drift(clock: float, y: Tensor) -> Tensor:
        level = math.exp(-clock)
        root = (variances + level**2).sqrt()
        state = known.join(y * root).flatten(1) + mean
        pull = known.split(fit.denoised(state, level) - state)
        return (pull + N * level / root) / root + y * (level / root) ** 2

    clock, end = -math.log(start), -math.log(stop)
    steps = math.ceil((end - clock) / INNER)
    h, y = (end - clock) / steps, known.split(X - mean) / (variances + start**2).sqrt()
    for i in range(steps):
        t = clock + i * h
        a = drift(t, y)
        b = drift(t + h / 2, y + h / 2 * a)
        c = drift(t + h / 2, y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + drift(t + h, y + h * c))
    return known.join(y * (variances + stop**2).sqrt()).flatten(1) + mean


def run(
    model: ss.ScoreModel, z: Tensor, calls: int, grid: str, k: int, values: int, free: bool
) -> Tensor:
    fit, at = fitted(model, k, max(1, min(24, 120 // k))), levels(model, grid, calls - 1 + free)
    X, past = z.flatten(1).double(), []
    known = fit.known.like(X)
    variances = known.coordinates.to(X)

    def denoised(X: Tensor, level: float) -> Tensor:
        return model.denoise(X.reshape(z.shape).to(z), torch.tensor(level, dtype=torch.float64))

    for i, (level, after) in enumerate(zip(at, at[1:], strict=False)):
        N = torch.zeros_like(X)
        if i or not free:
            off = denoised(X, level).flatten(1).double() - fit.denoised(X, level)
            N = known.split(off) * (variances + level**2).sqrt() / level
        past = [N, *past][:values]
        weighted = zip(ADAMS[len(past) - 1], past, strict=True)
        X = moved(fit, X, sum(w * v for w, v in weighted), level, after)
    return denoised(X, at[-1])


MEMBERS = {
    f"mixture of {k}, {values} values{', free' * free}": partial(
        run, k=k, values=values, free=free
    )
    for k in (3, 10, 30)
    for values, free in ((2, False), (2, True), (3, True))
}
