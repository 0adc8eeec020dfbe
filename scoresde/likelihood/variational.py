r"""Learned noise: variational dequantisation."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked

from ..doors.amounts import positive
from ..models.checks import check_count
from ..models.conditions import verb
from ..models.masked import refuse_mask
from ..models.score_model import ScoreModel
from .bits import bin_width, on_levels
from .bounds import elbo


@checked
class VariationalNoise(nn.Module):
    r"""Creates noise :math:`v = 1 / (1 + e^{-w}) - 1/2` with normal w, for bins of width 1.

    Arguments:
        network: A function of data, with shape (B, *), that returns the mean and the log of the
            standard deviation of w, each of that shape.

    References:
        | Flow++ (Ho et al., 2019), section 3.1
        | https://arxiv.org/abs/1902.00275

    Examples:
        >>> noise = ss.VariationalNoise(lambda x: (torch.zeros_like(x), torch.zeros_like(x)))
        >>> value, log_density = noise(torch.zeros(1, 2), torch.full((1, 2), 0.5))
        >>> value
        tensor([[0., 0.]])
    """

    def __init__(self, network: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the noise for given uniform numbers, and its log-density, with shape (B,)."""

        dtype = next((p.dtype for p in self.parameters()), x.dtype)
        mean, log_std = (value.to(x) for value in self.network(x.to(dtype)))
        z = math.sqrt(2) * torch.erfinv(2 * u - 1)
        w = mean + log_std.exp() * z
        slope = nn.functional.logsigmoid(w) + nn.functional.logsigmoid(-w)
        logs = -z.square() / 2 - math.log(2 * math.pi) / 2 - log_std - slope
        return torch.sigmoid(w) - 0.5, logs.double().flatten(1).sum(1)


@verb
def fit_noise(
    noise: VariationalNoise,
    model: ScoreModel,
    data: Tensor,
    *,
    levels: int,
    low: float = -1.0,
    high: float = 1.0,
    steps: int = 200,
    batch: int = 64,
    lr: float = 1e-2,
    seed: int = 0,
) -> Iterator[float]:
    r"""Trains noise to tighten the bound on the log-probability of data, one step per item.

    Arguments:
        noise: The noise.
        model: The score model, which is not changed.
        data: Data on the levels, with shape (M, *).
        levels: The number of levels.
        low: The value of the lowest level.
        high: The value of the highest level.
        steps: The number of steps.
        batch: The number of samples per step.
        lr: The learning rate of Adam.
        seed: The seed of batches and noise.

    Returns:
        The loss after each step, which is minus the evidence lower bound in nats per dimension.

    Raises:
        ValueError: If `noise` has no weights, or `data` is not on the levels.

    Examples:
        >>> class Halves(torch.nn.Conv1d):
        ...     def forward(self, x):
        ...         return super().forward(x[:, None]).unbind(1)
        >>> noise, x = ss.VariationalNoise(Halves(1, 2, 1)), torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
        >>> len(list(ss.fit_noise(noise, model, x, levels=3, steps=2)))
        2
    """

    refuse_mask(model, "fit_noise")
    steps, batch = check_count("steps", steps, at_least=1), check_count("batch", batch, at_least=1)
    if next(noise.parameters(), None) is None:
        raise ValueError("noise must have weights to train: its network must be a module.")
    width = bin_width(levels, low, high)
    data = on_levels(data, levels, low, high, "data")
    optimizer = torch.optim.Adam(noise.parameters(), lr=positive("lr", lr, zero=True))
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(data), (batch,), generator=draw)
        x = data[rows.to(data.device)].double()
        u = torch.rand(x.shape, generator=draw, dtype=torch.float64).to(x.device)
        with torch.enable_grad():
            v, log_q = noise(x, u)
            bound = elbo(model, x + width * v, draws=1, seed=seed + step, grad="backprop").nats
            loss = -(bound - log_q + x[0].numel() * math.log(width)).mean() / x[0].numel()
        weights = list(noise.parameters())
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = slope  # and no gradients for the model's
        optimizer.step()
        yield loss.item()
