r"""The pictures of the page on the playground: what a browser shows, by light and by dark.

python -m benchmarks.playground, or make screenshots
"""

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from scoresde.playground.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURES = Path(__file__).parent.parent / "docs" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PORT, PATIENCE, COLOURS, GREYS = 7861, 300_000, 96, 64


class Shot(NamedTuple):
    name: str
    address: str
    theme: str
    size: tuple[int, int] = (1280, 900)
    opened: tuple[str, ...] = ()


SHOTS = (
    Shot("paths_light", "data=moons&steps=20&step=16&samples=200", "light"),
    Shot("geometry_dark", "data=ring&label=1&guidance=2&solver=heun&show=geometry&step=6", "dark",
         size=(1280, 1500), opened=("The code for this",)),
    Shot("error_light", "data=moons&show=error&solver=unipc_1_bh1&grid=tan", "light"),
    Shot("narrow_dark", "data=digits&label=3&guidance=2&step=6&samples=16", "dark", size=(420, 2000)),
)  # fmt: skip


def take(browser: "Browser", base: str, shot: Shot) -> Image.Image:
    width, height = shot.size
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{base}?{shot.address}&__theme={shot.theme}")
    page.wait_for_selector("#picture img")
    for words in shot.opened:
        page.get_by_text(words, exact=True).click()
    page.wait_for_timeout(2000)
    page.evaluate("window.scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return reduced(picture.convert("RGB"))


def reduced(picture: Image.Image) -> Image.Image:
    r"""The picture with few colours: those it has, however rare, and shades of grey."""

    own = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE).getpalette() or []
    greys = [round(255 * i / (GREYS - 1)) for i in range(GREYS) for _ in range(3)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(own[: 3 * COLOURS] + greys)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def main() -> None:
    from playwright.sync_api import sync_playwright

    place = next(filter(None, map(shutil.which, BROWSERS)))
    with served(None, PORT) as (base, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        for shot in SHOTS:
            file = PICTURES / f"{shot.name}.png"
            take(browser, base, shot).save(file, optimize=True)
            print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
