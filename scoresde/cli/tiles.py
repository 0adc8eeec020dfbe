r"""Images as tiles of a png picture, which stores how to separate them again."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..models.latent import data_shape_of
from ..models.score_model import ScoreModel
from ..plots import samples, tile
from ..plots.figures import check_libraries

KEY = "scoresde tiles"  # of the entry of a picture's own description
GAP = 1  # pixels between images
ZOOM, LARGE = 4, 400  # pixels of a picture per image pixel, unless the image is large
MOST = 1000  # of gaps and zooms
PLAIN = {
    "gap": 0,
    "zoom": 1,
    "count": sys.maxsize,
}  # layout of a picture without description


def write_picture(file: Path, x: Tensor) -> None:
    r"""Writes grey images side by side with gaps, or draws other samples as :func:`scoresde.plots.samples` does.

    Arguments:
        file: The png file to write.
        x: Images with shape (B, 1, H, W), from -1 (black) to 1 (white), or other samples that can be drawn.
    """

    if x.ndim != 4 or x.shape[1] != 1:
        samples(file, x)
        return
    check_libraries()
    from PIL import Image, PngImagePlugin

    picture = tile(x.nan_to_num(-1.0).clamp(-1, 1), gap=GAP)
    zoom = ZOOM if max(picture.shape) < LARGE else 1
    pixels = np.kron(np.rint((picture + 1) * 127.5), np.ones((zoom, zoom))).astype(np.uint8)
    made = PngImagePlugin.PngInfo()
    made.add_text(KEY, json.dumps({"gap": GAP, "zoom": zoom, "count": len(x)}))
    Image.fromarray(pixels).save(file, pnginfo=made)


def read_picture(file: Path, model: ScoreModel) -> Tensor:
    r"""Returns the images of a picture, with shape (B, 1, H, W).

    Pictures written by :func:`write_picture` store where their images are. Others must be tiles of the model's
    shape without gaps, possibly with 4 x 4 pixels per image pixel.

    Arguments:
        file: The png file, from -1 (black) to 1 (white).
        model: The model that the images are for.
    """

    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}.")
    shape = data_shape_of(model)
    if shape is None or len(shape) != 3 or shape[0] != 1:
        raise ValueError("pictures are for models of grey images, of shape (1, H, W).")
    grey, made = _open(file)
    _, height, width = shape
    if made is None:
        zoomed = max(grey.shape) >= ZOOM * height and not math.fmod(grey.shape[0], ZOOM * height)
        made = {**PLAIN, "zoom": ZOOM if zoomed else 1}
    gap, zoom = made["gap"], made["zoom"]
    grey = grey[::zoom, ::zoom]
    if grey.shape[0] % (height + gap) or grey.shape[1] % (width + gap):
        between = f", with gaps of {gap}" if gap else ""
        raise ValueError(
            f"{file} has {grey.shape[0]} x {grey.shape[1]} pixels, not a multiple of "
            f"{height} x {width}{between}."
        )
    tiles = grey.unfold(0, height + gap, height + gap).unfold(1, width + gap, width + gap)
    images = tiles[..., :height, :width].reshape(-1, 1, height, width)[: made["count"]]
    return (2 * images - 1).contiguous()


def _open(file: Path) -> tuple[Tensor, dict[str, int] | None]:
    r"""Returns the pixels of a picture on [0, 1], and its description of its tiles, if it has one."""

    check_libraries()
    import matplotlib.image
    from PIL import Image

    try:
        pixels = torch.from_numpy(np.array(matplotlib.image.imread(file))).float()
        with Image.open(file) as image:
            said = getattr(image, "text", {}).get(KEY)
    except (SyntaxError, ValueError, OSError) as error:  # which a damaged png raises
        raise ValueError(f"{file} is not a png picture, or is damaged ({error}).") from None
    grey = pixels[..., :3].mean(-1) if pixels.ndim == 3 else pixels
    return grey, None if said is None else _described(file, said)


def _described(file: Path, said: str) -> dict[str, int]:
    r"""A picture's description of its tiles, as valid whole numbers."""

    try:
        made = {name: int(json.loads(said)[name]) for name in PLAIN}
    except (ValueError, TypeError, KeyError, OverflowError):
        made = dict.fromkeys(PLAIN, -1)
    if made["gap"] not in range(MOST) or made["zoom"] not in range(1, MOST) or made["count"] < 1:
        raise ValueError(f"{file} describes its tiles wrongly: {said!r}.")
    return made
