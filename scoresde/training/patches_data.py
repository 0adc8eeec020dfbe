r"""Grey patches of scikit-learn's two photographs, a Chinese temple and a flower.

They are scaled to [-1, 1], and the right quarter of each photograph is held out.
"""

from functools import cache

import torch
from torch import Tensor

SIZE, HELD_OUT = 16, 0.25  # pixels of a side, and the fraction of the columns


def patches(count: int, split: str = "train", *, size: int = SIZE, seed: int = 0) -> Tensor:
    r"""Returns random patches of the "train" or the "test" part, with shape (count, 1, size, size), in float32.

    Half of them are mirrored.

    Arguments:
        count: The number of patches.
        split: "train" for the left part of both photographs, or "test" for the right one.
        size: The height and width of a patch, in pixels.
        seed: The seed of their places.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there is no such part, or a patch does not fit into it.

    Examples:
        >>> from scoresde.training.patches_data import patches
        >>> patches(4, "test").shape
        torch.Size([4, 1, 16, 16])
    """

    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', but is {split!r}.")
    parts = _parts(split)
    height, width = parts[0].shape
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"size must be from 1 to {min(height, width)}, as patches lie in the {split!r} part, but is {size}."
        )
    draw = torch.Generator().manual_seed(seed)
    which, mirrored = torch.randint(2, (2, count), generator=draw)
    row = torch.randint(height - size + 1, (count, 1, 1), generator=draw)
    column = torch.randint(width - size + 1, (count, 1, 1), generator=draw)
    along = torch.arange(size)
    across = torch.where(mirrored[:, None, None] == 1, along.flip(0), along)
    x = parts[which[:, None, None], row + along[:, None], column + across]
    return x[:, None]


@cache
def _parts(split: str) -> Tensor:
    r"""One part of both photographs, with shape (2, H, W)."""

    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise ImportError(
            "the patches need scikit-learn: pip install 'scoresde[train]'."
        ) from None
    grey = torch.stack(
        [torch.tensor(image).float().mean(2) for image in load_sample_images().images]
    )
    edge = round((1 - HELD_OUT) * grey.shape[2])
    whole = grey / 127.5 - 1
    return whole[:, :, :edge] if split == "train" else whole[:, :, edge:]
