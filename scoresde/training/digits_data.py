r"""The digits of scikit-learn: 1797 images of 8 x 8 pixels with levels 0 to 16.

They are scaled to [-1, 1], and a fifth of each class is held out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS, CLASSES = 17, 10


class Digits(NamedTuple):
    r"""Images on their levels, with shape (N, 1, 8, 8), and their labels, with shape (N,)."""

    images: Tensor
    labels: Tensor


def digits(split: str = "train") -> Digits:
    r"""Returns the images of the "train" or the "test" split, in float32.

    Raises:
        ImportError: If scikit-learn is missing.
    """

    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise ImportError("the digits need scikit-learn: pip install 'scoresde[train]'.") from None
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', but is {split!r}.")
    pixels, target = load_digits(return_X_y=True)
    parts = train_test_split(pixels, target, test_size=0.2, stratify=target, random_state=0)
    images, labels = parts[split == "test"], parts[2 + (split == "test")]
    images = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 8 - 1
    return Digits(images, torch.from_numpy(labels))
