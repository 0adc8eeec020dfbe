r"""A residual network for vectors."""

import torch.nn.functional as F
from torch import Tensor, nn

from solvers.doors.signatures import checked

from .inputs import check_dropout, check_input, check_settings, embedded, with_estimate
from .unet import frequencies, waves


@checked
class MLP(nn.Module):
    r"""Creates a network for vectors, with residual blocks that are modulated by the time and the label.

    Each block adds :math:`A \, \mathrm{silu}((1 + s) \odot B \, \mathrm{norm}(h) + b)` to its input h, with s
    and b of the time and the label. The output is 0 before training.

    References:
        | Deep Residual Learning for Image Recognition (He et al., 2016), section 3
        | https://arxiv.org/abs/1512.03385
        | FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), section 2
        | https://arxiv.org/abs/1709.07871

    Arguments:
        size: The number of entries of a sample.
        width: The number of hidden features.
        depth: The number of residual blocks.
        classes: The number of labels, or 0 for none.
        dropout: The probability of dropping a feature in training.
        self_conditioning: Whether it takes its last estimate of the data.

    Examples:
        >>> from scoresde.networks import MLP
        >>> MLP(size=2, width=32)(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        size: int,
        width: int = 128,
        depth: int = 3,
        classes: int = 0,
        dropout: float = 0.0,
        self_conditioning: bool = False,
    ) -> None:
        super().__init__()
        check_settings(1, size=size, depth=depth)
        check_settings(2, width=width)
        check_settings(0, classes=classes)
        check_dropout(dropout)
        self.size, self.self_conditioning = size, self_conditioning
        self.frequencies = nn.Buffer(frequencies(width // 2))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.time = nn.Sequential(
            nn.Linear(2 * (width // 2), width), nn.SiLU(), nn.Linear(width, width)
        )
        self.first = nn.Linear((1 + self_conditioning) * size, width)
        self.blocks = nn.ModuleList([Block(width, dropout) for _ in range(depth)])
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, size))
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.last[-1].bias)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        r"""Returns the output, a tensor like `x`.

        Arguments:
            x: Vectors, with shape (B, size).
            t: A number for the noise level, with shape (B,).
            label: The labels, with shape (B,), where `classes` stands for no label.
            estimate: With self-conditioning, the last estimate of the data, with shape (B, size). By default, 0.
        """

        check_input(self, x, (self.size,))
        h = self.first(with_estimate(self, x, estimate, self.self_conditioning))
        features = self.time(waves(t, self.frequencies).to(x.dtype))
        features = F.silu(features + embedded(self.label, label, x))
        for block in self.blocks:
            h = block(h, features)
        return self.last(h)  # type: ignore[no-any-return]


class Block(nn.Module):
    r"""A residual block of two layers, with features that scale and shift."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)
        self.modulate, self.outer = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.modulate(features).chunk(2, dim=1)
        h = F.silu(self.inner(self.norm(x)) * (1 + scale) + shift)
        return x + self.outer(self.dropout(h))  # type: ignore[no-any-return]
