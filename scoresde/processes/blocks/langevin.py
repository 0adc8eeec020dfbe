r"""Critically damped Langevin diffusion: data as positions, with velocities that alone receive noise."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.doors.signatures import checked

from ...doors.amounts import positive
from ..custom import described
from ..quadrature import PIECES, Antiderivative, Known, check_rate, rate_at, refined
from .process import BlockProcess

WIDEST = 1e6  # of gamma, beyond which round-off hides the noise


@checked
@dataclass(frozen=True)
class CLD(BlockProcess):
    r"""Creates critically damped Langevin diffusion, with position x and velocity v of every entry of the data.

    .. math:: dx = \frac{\beta}{M} v \, dt , \qquad
        dv = - \beta \Big( x + \frac{\Gamma}{M} v \Big) dt + \sqrt{2 \Gamma \beta} \, dw , \quad
        \Gamma = 2 \sqrt M .

    The data is :math:`x_0`, and :math:`v_0 \sim \mathcal{N}(0, \gamma M)` is integrated out, which is hybrid score
    matching. With :math:`B = \int_0^t \beta` and :math:`a = B / \sqrt M`,

    .. math:: \Phi = e^{-a} \begin{pmatrix} 1 + a & B / M \\ -B & 1 - a \end{pmatrix} , \qquad
        \Sigma_{xx} = P(3, 2 a) + \gamma a^2 e^{-2 a} , \quad
        \Sigma_{xv} = B e^{-2 a} (2 a + \gamma (1 - a)) ,

    .. math:: \Sigma_{vv} = M \big( P(3, 2 a) + 4 a e^{-2 a} + \gamma (1 - a)^2 e^{-2 a} \big)

    with the regularised incomplete gamma function P. States have shape (B, 2 d, *) for data with shape (B, d, *):
    first the positions, then the velocities.

    Arguments:
        beta: The rate :math:`\beta(t) > 0`, a number or a function of time.
        mass: The mass M.
        gamma: The variance :math:`\gamma` of the first velocities over that of the last ones.
        t_min: The first time.
        t_max: The last time.

    Raises:
        ValueError: If `beta`, `mass` or `gamma` is not positive.

    References:
        | Score-Based Generative Modeling with Critically-Damped Langevin Diffusion (Dockhorn et al., 2022),
        | equations (5) and (6)
        | https://arxiv.org/abs/2112.07068

    Examples:
        >>> process = ss.CLD()
        >>> round(float(process.diffusion(torch.tensor(0.5))[0, 1, 1]) ** 2, 6)  # 2 Gamma beta
        8.0
        >>> model = ss.GaussianOracle(torch.zeros(2), 0.5, process=process)
        >>> ss.sample(model, 3, solver="exponential_2", steps=10).x.shape
        torch.Size([3, 2])
    """

    beta: Known = 4.0
    mass: float = 0.25
    gamma: float = 0.04
    t_min: float = 1e-3
    t_max: float = 1.0
    size: int = field(default=2, init=False, repr=False)
    data_size: int = field(default=1, init=False, repr=False)

    def __post_init__(self) -> None:
        check_rate("beta", self.beta)
        positive("mass", self.mass)
        positive("gamma", self.gamma, most=WIDEST)
        self._check_ends()
        edges = self.t_max * torch.linspace(0, 1, PIECES + 1, dtype=torch.float64)
        edges = refined("beta", self._beta, edges, torch.ones_like)
        if not bool((self._beta(edges[1:]) > 0).all()):
            raise ValueError("beta must be positive at all times.")
        object.__setattr__(self, "_way", Antiderivative.of(self._beta, edges))
        self._check()

    def __repr__(self) -> str:
        if callable(self.beta):
            return described(self, "beta")
        span = f"t in [{self.t_min:.3g}, {self.t_max:.3g}]"
        return f"CLD(beta={self.beta:.4g}, mass={self.mass:.4g}, gamma={self.gamma:.4g}, {span})"

    def signal_matrix(self, t: Tensor) -> Tensor:
        return self._carried(self._passed(t))[..., :1]

    def covariance(self, t: Tensor) -> Tensor:
        B = self._passed(t)
        a = B / self.mass**0.5
        decay, rest = torch.exp(-2 * a), torch.special.gammainc(torch.full_like(a, 3.0), 2 * a)
        xx = rest + self.gamma * a**2 * decay
        xv = B * decay * (2 * a + self.gamma * (1 - a))
        vv = self.mass * (rest + (4 * a + self.gamma * (1 - a) ** 2) * decay)
        return _matrix(xx, xv, xv, vv)

    def drift_matrix(self, t: Tensor) -> Tensor:
        beta = self._beta(t)
        zero, friction = torch.zeros_like(beta), 2 * self.mass**0.5
        return _matrix(zero, beta / self.mass, -beta, -beta * friction / self.mass)

    def diffusion(self, t: Tensor) -> Tensor:
        beta = self._beta(t)
        zero = torch.zeros_like(beta)
        return _matrix(zero, zero, zero, (4 * self.mass**0.5 * beta).sqrt())

    def transition(self, s: Tensor, t: Tensor) -> Tensor:
        return self._carried(self._passed(t) - self._passed(s))

    def _carried(self, B: Tensor) -> Tensor:
        a = B / self.mass**0.5
        decay = torch.exp(-a)
        return _matrix((1 + a) * decay, B / self.mass * decay, -B * decay, (1 - a) * decay)

    def _passed(self, t: Tensor) -> Tensor:
        t = t.double()
        way: Antiderivative = vars(self)["_way"]
        return way(t) if callable(self.beta) else self._beta(t) * t

    def _beta(self, t: Tensor) -> Tensor:
        return rate_at("beta", self.beta, t.double())


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    r"""Matrices of two rows, with shape (\*, 1, 2, 2)."""

    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)[..., None, :, :]
