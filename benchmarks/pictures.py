r"""All pictures of the docs, from stored results and models, each as small as it may be.

Models of patches and of latents are trained first, for some minutes, unless they are in `runs/`.

python -m benchmarks.pictures [NAME ...]

The names are those of `DRAWN`; `small` alone draws nothing, and makes the pictures that are there smaller.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence

from . import (
    choosing,
    figures,
    gallery,
    geometry,
    guidance,
    inference,
    latent_models,
    patches,
    probe,
)

PICTURES = gallery.PICTURES
COLOURS = {".png": 256, ".gif": 32}  # of a palette, at most
DRAWN: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "gallery": (gallery.main, (
        "samples.png", "edit_methods.png", "edit.gif", "edit.png", "inpaint.png", "interpolation.png", "grid.png",
        "directions.png", "style.png", "scatter.png")),
    "guided": (geometry.flat, (
        "geometry_free.png", "geometry_interval_way.png", "geometry_projected_way.png", "geometry_classifier_way.png",
        "geometry.gif")),
    "followed": (geometry.picture, ("geometry_digits.png", "trajectory.png", "film.png")),
    "spectra": (geometry.spectra, ("spectrum.png", "spectrum_photos.png")),
    **{f"choosing_{name}": (draw, (f"choosing_{name}.png",)) for name, draw in choosing.FIGURES.items()},
    "figures": (figures.main, (
        "accuracy.png", "distance_digits.png", "distance_mixture.png", "distance_trained.png", "budget.png")),
    "guidance": (guidance.picture, ("guidance.png",)),
    "probe": (probe.picture, ("probe.png",)),
    "inference": (inference.pictures, ("inference.png", "inference_ranks.png", "inference_coverage.png")),
    "latent_models": (latent_models.picture, ("latent_models.png",)),
    "patches": (patches.picture, ("patches.png", "patches_decided.png")),
}  # fmt: skip


def small(file: Path) -> None:
    r"""Writes a picture again with a palette, unless it has one: grey images keep every value."""

    with Image.open(file) as image:
        if image.format == "PNG" and image.mode != "P":
            paletted(image.convert("RGB"), COLOURS[".png"]).save(file, optimize=True)
        elif image.format == "GIF":
            animation(image, file)


def paletted(image: Image.Image, count: int) -> Image.Image:
    r"""Returns an image with at most so many colours, those it has if they are few enough."""

    few = image.getcolors(count) is not None
    method = Image.Quantize.MEDIANCUT if few else Image.Quantize.FASTOCTREE
    return image.quantize(count, method, dither=Image.Dither.NONE)


def animation(image: Image.Image, file: Path) -> None:
    r"""Writes an animation with one palette of few colours, unless it has no more."""

    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    times = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    whole = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    if whole.getcolors(COLOURS[".gif"]) is not None:
        return
    palette = whole.quantize(COLOURS[".gif"], Image.Quantize.MEDIANCUT)
    made = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    made[0].save(
        file, save_all=True, append_images=made[1:], duration=times, loop=0, optimize=True
    )


def main() -> None:
    torch.set_num_threads(2)
    for name in sys.argv[1:] or DRAWN:
        draw, files = DRAWN.get(name, (lambda: None, tuple(f.name for f in PICTURES.iterdir())))
        draw()
        for file in files:
            small(PICTURES / file)


if __name__ == "__main__":
    main()
