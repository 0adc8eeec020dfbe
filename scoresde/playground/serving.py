r"""Serves the page on this machine alone, without a network, within one folder."""

import os
import socket
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..plots.figures import check_libraries
from .warned import listening

HOST = "127.0.0.1"
PORT = 7860
LARGEST_FILE = "2mb"
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}  # so that nothing asks another machine


@contextmanager
def served(folder: Path | None = None, port: int = PORT) -> Iterator[tuple[str, Path]]:
    r"""Serves the playground in its block, and yields its address and the folder that it writes into.

    Arguments:
        folder: The folder for everything that is written. By default, a temporary one, which is removed.
        port: The port.

    Raises:
        ImportError: If gradio or a library for pictures is missing.
        OSError: If the port is taken, or the folder cannot be written.
    """

    check_port(port)
    _check_gradio()
    check_libraries()
    with within(folder) as room, _environment(room), listening():
        import gradio as gr

        from .page import STYLE, Page

        base = f"http://{HOST}:{port}/"
        blocks = Page(Path(tempfile.gettempdir()), base).blocks  # from where gradio takes files
        theme = gr.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )
        blocks.launch(
            server_name=HOST, server_port=port, share=False, quiet=True, prevent_thread_lock=True, theme=theme,
            css=STYLE, footer_links=[], run_history=False, max_file_size=LARGEST_FILE, ssr_mode=False, pwa=False,
            mcp_server=False, enable_monitoring=False,
        )  # fmt: skip
        try:
            yield base, room
        finally:
            blocks.close(verbose=False)


def open_browser(address: str) -> bool:
    r"""Opens the page in a browser, and returns whether there is one."""

    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def check_port(port: int) -> None:
    r"""Refuses a port that is taken, or that no server may have."""

    if not 1 <= port <= 65535:
        raise ValueError(f"port must lie in [1, 65535], but is {port}.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((HOST, port))
        except OSError as error:
            raise OSError(
                f"port {port} cannot be used ({error.strerror}); pass another as port=."
            ) from None


def _check_gradio() -> None:
    if find_spec("gradio") is None:
        raise ImportError("the playground needs gradio: pip install 'scoresde[playground]'.")


@contextmanager
def within(folder: Path | None) -> Iterator[Path]:
    r"""The folder, which is removed if it is temporary."""

    if folder is None:
        with tempfile.TemporaryDirectory(prefix="scoresde-playground-") as name:
            yield Path(name)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"folder {folder} cannot be written: {error.strerror}.") from None
    yield folder.absolute()


@contextmanager
def _environment(room: Path) -> Iterator[None]:
    r"""Sends what gradio, matplotlib and Python write into the folder, and keeps them from asking elsewhere."""

    places = {"GRADIO_TEMP_DIR": room / "gradio", "MPLCONFIGDIR": room / "matplotlib",
              "XDG_CACHE_HOME": room / "cache", "HF_HOME": room / "hub"}  # fmt: skip
    wanted = {**SILENT, **{name: str(place) for name, place in places.items()}}
    before: dict[str, Any] = {name: os.environ.get(name) for name in wanted}
    temporary = tempfile.tempdir
    (room / "temporary").mkdir(exist_ok=True)
    os.environ.update(wanted)
    tempfile.tempdir = str(room / "temporary")
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
