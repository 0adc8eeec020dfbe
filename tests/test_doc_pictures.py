r"""The pictures of the docs: one command draws each, a page shows each, and they are small."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import pictures

from .pages import PAGES, ROOT

DOCS = ROOT / "docs"
FILES = sorted(file.name for file in pictures.PICTURES.iterdir())
LARGEST = 4e6  # bytes of all docs


def test_one_command_draws_every_picture() -> None:
    drawn = sorted(file for _, files in pictures.DRAWN.values() for file in files)
    assert drawn == FILES, "benchmarks/pictures.py says which pictures there are"


def test_every_picture_is_shown() -> None:
    shown = {
        name for page in PAGES for name in re.findall(r"pictures/(\w+\.\w+)\)", page.read_text())
    }
    assert set(FILES) == shown


@pytest.mark.parametrize("name", FILES)
def test_pictures_are_small(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes((pictures.PICTURES / name).read_bytes())
    pictures.small(file)
    assert file.stat().st_size == (pictures.PICTURES / name).stat().st_size, "run make figures"


def test_docs_are_small() -> None:
    assert sum(file.stat().st_size for file in DOCS.rglob("*") if file.is_file()) < LARGEST


@pytest.mark.parametrize("grey", [True, False])
def test_palettes_keep_grey_values_and_come_near_colours(grey: bool, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    pixels[..., :] = pixels[..., :1] if grey else pixels
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    pictures.small(file)
    with Image.open(file) as image:
        assert image.mode == "P"
        off = np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels).max()
    assert off == 0 if grey else off < 64


def test_animations_keep_their_times(tmp_path: Path) -> None:
    frames = [
        Image.fromarray(np.full((8, 8), 40 * i + np.arange(8) * 5, np.uint8)) for i in range(5)
    ]
    file, times = tmp_path / "a.gif", [50, 50, 50, 50, 1500]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=times, loop=0)
    with Image.open(file) as image:
        pictures.animation(image, file)
    with Image.open(file) as image:
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append(image.info["duration"])
    assert found == times
