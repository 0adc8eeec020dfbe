r"""Folders of images as data on 256 levels."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def read_images(folder: Path) -> tuple[Tensor, Tensor | None, list[str]]:
    r"""Returns the images in a folder and its subfolders, whose names are the labels.

    Arguments:
        folder: The folder, with images of one size.

    Returns:
        Levels from 0 to 255, with shape (N, C, H, W), where C is 1 if all images are grey, and otherwise 3; labels
        if the images lie in subfolders; and the names of the subfolders.

    Raises:
        ValueError: If there are no images, or their sizes differ.
        ImportError: If Pillow is missing.
    """

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(ENDINGS)}).")
    pixels = [_read(file) for file in files]
    first = pixels[0].shape[:2]
    for file, one in zip(files, pixels, strict=True):
        if one.shape[:2] != first:
            raise ValueError(
                f"the images of {folder} must have one size, but {files[0].name} has {first[1]} x {first[0]} "
                f"pixels and {file.name} has {one.shape[1]} x {one.shape[0]}; scale or cut them first."
            )
    grey = all(one.ndim == 2 for one in pixels)
    x = np.stack([one if grey else _coloured(one) for one in pixels])
    x = x[:, None] if grey else np.moveaxis(x, -1, 1)
    places = [file.relative_to(folder).parts[0] for file in files]
    within = [len(file.relative_to(folder).parts) > 1 for file in files]
    if any(within) and not all(within):
        stray = files[within.index(False)].name
        raise ValueError(
            f"the images of {folder} must lie in subfolders, one for each label, or none of them, but {stray} "
            "does not."
        )
    names = sorted(set(places)) if any(within) else []
    labels = torch.tensor([names.index(place) for place in places]) if names else None
    return torch.from_numpy(np.ascontiguousarray(x)), labels, names


def _read(file: Path) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImportError("images need Pillow: pip install 'scoresde[train]'.") from None
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file} is not an image, or is damaged ({error}).") from None


def _coloured(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
