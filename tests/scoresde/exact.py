r"""Expectations of losses without noise: quadrature over data and noise, and minimisers by one step of Newton."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import scoresde as ss

Loss = Callable[..., Tensor]
M, V = 0.4, 0.3  # mean and variance of normal data
MODES, STD = (-0.8, 0.9), 0.35  # of a mixture


def hermite(count: int) -> tuple[Tensor, Tensor]:
    r"""Nodes and weights of the standard normal law, exact for polynomials of degree 2 count - 1."""

    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def legendre(count: int) -> tuple[Tensor, Tensor]:
    r"""Nodes and weights of the uniform law on (0, 1)."""

    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def product(*axes: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
    r"""Nodes on each axis, and weights, of independent laws."""

    nodes = torch.meshgrid(*(nodes for nodes, _ in axes), indexing="ij")
    weights = torch.meshgrid(*(weights for _, weights in axes), indexing="ij")
    return [one.flatten() for one in nodes], torch.stack(weights).prod(0).flatten()


def normal(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    r"""Data, noise and weights of normal data: x and z with shape (N, 1)."""

    (xi, z), weights = product(hermite(count), hermite(count))
    return M + V**0.5 * xi[:, None], z[:, None], weights


def mixed(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    r"""The same of the mixture."""

    (xi, z), weights = product(hermite(count), hermite(count))
    x = torch.cat([mode + STD * xi for mode in MODES])
    return x[:, None], z.repeat(2)[:, None], weights.repeat(2) / 2


def normal_oracle(process: ss.Process) -> ss.GaussianOracle:
    return ss.GaussianOracle(
        torch.tensor([M], dtype=torch.float64), torch.tensor([[V]], dtype=torch.float64), process
    )


def mixture_oracle(process: ss.Process) -> ss.MixtureOracle:
    means = torch.tensor(MODES, dtype=torch.float64)[:, None]
    return ss.MixtureOracle(means, STD, process=process)


class Features(ss.ScoreModel):
    r"""A model whose denoised data is linear in its weights: theta times features of the state."""

    def __init__(
        self,
        process: ss.Process,
        theta: Tensor,
        features: Callable[[Tensor, Tensor], Tensor] | None = None,
        learned: str = "score",
    ) -> None:
        super().__init__()
        self.process, self.theta, self.learned = process, theta, learned
        self.features = features or (lambda x, t: torch.cat([x, torch.ones_like(x)], 1))

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return (self.features(x, t) @ self.theta)[:, None]


class Bent(ss.ScoreModel):
    r"""A model that is far from any score."""

    def __init__(self, process: ss.Process, a: float = 0.7) -> None:
        super().__init__()
        self.process, self.a = process, a

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        scale = self.process.scales(t)[0].reshape(-1, 1)
        return self.a * torch.tanh(x / scale + 0.2) + 0.1 * torch.roll(x, 1, 1)


def minimiser(
    value: Callable[[Tensor], Tensor], size: int = 2, start: float = 0.3
) -> tuple[Tensor, Tensor]:
    r"""The minimiser of a function that is quadratic, by one step of Newton, and the minimum."""

    theta = torch.full((size,), start, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(value, theta)
    hessian = torch.autograd.functional.hessian(value, theta)
    assert torch.linalg.eigvalsh(hessian).min() > 0
    best = theta - torch.linalg.solve(hessian, gradient)
    return best, value(best)


def mean(loss: Tensor, weights: Tensor) -> float:
    return float((loss.double() * weights).sum())


def at(process: ss.Process, t: float, rows: int) -> Tensor:
    r"""The log-SNR of a time, for each row."""

    return process.log_snr(torch.tensor(t, dtype=torch.float64)).expand(rows)
