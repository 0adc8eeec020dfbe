r"""Animations from pictures, as GIF or as a self-contained page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solvers.doors.signatures import checked

from ..files import replacing
from .figures import check_libraries

REST = 1500  # milliseconds at the end


@checked
def check_gif(file: Path) -> None:
    r"""Raises a `ValueError` for a file that cannot hold an animation.

    Arguments:
        file: The file to write.

    Examples:
        >>> ss.plots.check_gif(folder / "path.png")
        Traceback (most recent call last):
        ValueError: an animation needs a gif file, not 'path.png'.
    """

    if file.suffix != ".gif":
        raise ValueError(f"an animation needs a gif file, not {file.name!r}.")


def write_gif(file: Path, pictures: Sequence[np.ndarray], seconds: float) -> None:
    r"""Writes an animated GIF, which pauses at its end.

    Arguments:
        file: The file to write.
        pictures: The pictures in 8 bits, with shape (H, W) for grey or (H, W, 3) for colour.
        seconds: Its duration, without the pause.
    """

    check_libraries()
    from PIL import Image

    images = [Image.fromarray(picture) for picture in pictures]
    step = max(20, round(1000 * seconds / len(images)))
    with replacing(file) as part:
        images[0].save(part, format="GIF", save_all=True, append_images=images[1:], loop=0,
                       duration=[step] * (len(images) - 1) + [REST])  # fmt: skip


def write_page(file: Path, pictures: Sequence[np.ndarray], seconds: float, title: str) -> None:
    r"""Writes a self-contained page with a slider over the pictures.

    The arguments are those of :func:`write_gif`, and the title of the page.
    """

    check_libraries()
    from PIL import Image

    frames = []
    for picture in pictures:
        room = io.BytesIO()
        Image.fromarray(picture).save(room, format="PNG")
        frames.append(f'"data:image/png;base64,{base64.b64encode(room.getvalue()).decode()}"')
    page = Path(__file__).with_name("movie.html").read_text()
    told = {
        "TITLE": title,
        "FRAMES": ",\n".join(frames),
        "PAUSE": str(round(1000 * seconds / len(frames))),
    }
    for name, text in told.items():
        page = page.replace(f"{{{{{name}}}}}", text)
    with replacing(file) as part:
        part.write_text(page)
