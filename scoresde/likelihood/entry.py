r"""How data enters a density under a process on blocks: as a state, and with what this adds to its log-density.

If the state has auxiliary parts v, such as velocities, the density of the data is at least

.. math:: \log p(x) \geq \mathbb{E}_{v \sim q} \big[ \log p(x, v) - \log q(v \mid x) \big] ,

with equality for :math:`q = p(v \mid x)`. Here q is that of Gaussian data of the model's scale, from which v is
drawn once for each sample; with the first law of v as q, this is the bound as it was published.

References:
    | Score-Based Generative Modeling with Critically-Damped Langevin Diffusion (Dockhorn et al., 2022),
    | section 3.3 and appendix B.4
    | https://arxiv.org/abs/2112.07068
"""

import math

import torch
from torch import Tensor

from solvers.noise.brownian import AUXILIARY, Seed, keyed_normal

from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from ..processes.blocks.process import BlockProcess


def entered(
    model: ScoreModel, process: BlockProcess, x: Tensor, t: float, seed: Seed, index: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Returns the states of data, and what their log-density lacks for that of the data, with shape (B,).

    Arguments:
        model: The score model.
        process: Its process.
        x: Data, with shape (B, \*).
        t: The time of the data.
        seed: The seed of auxiliary parts, or one per sample.
        index: The indices of the samples.
    """

    time, j = torch.tensor(t, dtype=torch.float64), process.data_size
    A = process.signal_matrix(time)
    volume = torch.linalg.slogdet(A[..., :j, :])[1].mean() * (x[0].numel() / j)
    state = process.times(A, x)
    if process.size == j:
        return state, volume.to(x.device).expand(len(x))
    total = scale_of(model) ** 2 * A @ A.mT + process.covariance(time)
    own, mixed, rest = total[..., :j, :j], total[..., j:, :j], total[..., j:, j:]
    gain = torch.linalg.solve(own, mixed, left=False)
    root = torch.linalg.cholesky(rest - gain @ mixed.mT)
    position = process.times(A[..., :j, :], x)
    size = state[0].numel() - position[0].numel()
    z = keyed_normal(seed, index, AUXILIARY, 0, size).to(x).reshape(len(x), -1, *x.shape[2:])
    velocity = process.times(gain, position) + process.times(root, z)
    logs = root.diagonal(dim1=-2, dim2=-1).log().sum(-1).mean() * (size / (process.size - j))
    entropy = z.double().square().flatten(1).sum(1) / 2 + logs + size / 2 * math.log(2 * math.pi)
    return torch.cat([position, velocity], 1), volume + entropy
