r"""A small network from images to the logits of their classes."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .unet import Block, Halve, frequencies, waves


class Encoder(nn.Module):
    r"""Creates the encoder half of a U-Net, with logits at its end.

    Arguments:
        channels: The number of channels of the images.
        width: The number of channels of the first level.
        multipliers: The number of channels of each level, in multiples of `width`. Every level except the first
            halves height and width.
        size: The height and width of the images.
        classes: The number of logits.
        dropout: The probability of dropping a feature in training.

    Examples:
        >>> from scoresde.networks import Encoder
        >>> Encoder(width=16, classes=10)(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 24,
        multipliers: Sequence[int] = (1, 2, 3),
        size: int = 8,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features = 2 * width
        self.frequencies = nn.Buffer(frequencies(width // 2))
        self.time = nn.Sequential(nn.Linear(2 * (width // 2), features), nn.SiLU())
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down, now = nn.ModuleList(), width
        for level, multiplier in enumerate(multipliers):
            if level:
                self.down.append(Halve(now))
                size = (size + 1) // 2
            self.down.append(Block(now, width * multiplier, features, dropout))
            now = width * multiplier
        self.last = nn.Sequential(
            nn.GroupNorm(8, now), nn.SiLU(), nn.Flatten(), nn.Linear(now * size**2, classes)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Returns the logits, with shape (B, classes).

        Arguments:
            x: Images, with shape (B, C, H, W).
            t: A number for the noise level, with shape (B,).
        """

        features = F.silu(self.time(waves(t, self.frequencies)))
        h = self.first(x)
        for module in self.down:
            h = module(h, features)
        return self.last(h)  # type: ignore[no-any-return]
