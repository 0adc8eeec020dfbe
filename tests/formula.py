r"""A network that is a formula, so that every library can be asked of the same one."""

import torch
from torch import Tensor, nn

SHAPE = (3, 1, 4, 4)


class Formula(nn.Module):
    r"""Creates the network :math:`\tanh(W x + \cos(k t) + \sin(y))` of float32 weights.

    Its weights are :math:`W_{ij} = \sin(1 + 2 i + 3 j + i j) / 4`.

    Arguments:
        k: What the time label is multiplied by.
        channels: How many channels it returns: with two, the second stands for a variance.
        size: The numbers of a sample.
    """

    def __init__(self, k: float = 1.0, channels: int = 1, size: int = 16) -> None:
        super().__init__()
        i, j = torch.meshgrid(*2 * [torch.arange(size, dtype=torch.float32)], indexing="ij")
        self.k, self.channels = k, channels
        self.weight = nn.Parameter(torch.sin(1 + 2 * i + 3 * j + i * j) / 4)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, **_: object) -> Tensor:
        label = torch.cos(self.k * torch.as_tensor(t).to(x).reshape(-1, 1))
        label = label if y is None else label + torch.sin(y.to(x).reshape(-1, 1))
        F = torch.tanh(x.flatten(1) @ self.weight.to(x) + label).reshape(x.shape)
        return F if self.channels == 1 else torch.cat([F, F.square()], 1)


def start(shape: tuple[int, ...] = SHAPE) -> Tensor:
    r"""Returns the noise from which all start: :math:`\sqrt 2 \sin(i^2 + 1)`, in float32."""

    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (2**0.5 * torch.sin(i * i + 1)).reshape(shape).float()
