r"""The page in the system's Chromium, by `make test-all`; left out where gradio or a browser is missing."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 180_000  # milliseconds
collect_ignore_glob = [] if find_spec("gradio") and find_spec("playwright") else ["test_*"]


class Served(NamedTuple):
    r"""The playground in a process of its own, whose folders for everything else are empty at first."""

    address: str
    folder: Path
    elsewhere: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("playground")
    folder, elsewhere = root / "mine", root / "elsewhere"
    for name in ("home", "temporary", "here"):
        (elsewhere / name).mkdir(parents=True)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "HOME": str(elsewhere / "home"), "TMPDIR": str(elsewhere / "temporary"),
                   "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": package}  # fmt: skip
    command = [sys.executable, "-c", "from scoresde.cli import main; main()", "playground",
               "--port", str(port), "--folder", str(folder)]  # fmt: skip
    with subprocess.Popen(
        command, cwd=elsewhere / "here", env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        address = f"http://127.0.0.1:{port}/"
        assert said == [f"playground: {address}\n", f"files: {folder}\n", "Ctrl-C ends it.\n"]
        yield Served(address, folder, elsewhere)
        process.terminate()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    place = next(filter(None, map(shutil.which, NAMES)), None)
    if place is None:
        pytest.skip("no Chromium on this machine: install the system's package, such as chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield made
        made.close()


class Tab:
    r"""A page of the playground in a session of its own, as users see it."""

    def __init__(self, browser: "Browser", served: Served, width: int = 1280) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.base = served.address
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, **words: object) -> "Tab":
        self.page.goto(f"{self.base}?{urlencode(words)}")
        self.page.wait_for_selector("#picture img, #sentence .said")
        return self

    @property
    def picture(self) -> str:
        return self.page.locator("#picture img").get_attribute("src") or ""

    @property
    def sentence(self) -> str:
        return self.page.locator("#sentence").inner_text()

    def fill(self, name: str, value: str) -> None:
        self.page.locator(f"#{name} input").first.fill(value)
        self.page.keyboard.press("Enter")

    def choose(self, name: str, words: str) -> None:
        self.page.locator(f"#{name}").get_by_text(words, exact=True).click()

    def until_address(self, part: str) -> None:
        r"""Waits until the address says that a view of these choices is shown."""

        self.page.wait_for_function("part => window.location.search.includes(part)", arg=part)

    def until_sentence(self, part: str) -> None:
        self.page.wait_for_function(
            "part => document.querySelector('#sentence').innerText.includes(part)", arg=part
        )

    def until_no_sentence(self) -> None:
        self.page.wait_for_function("!document.querySelector('#sentence .said')")

    def seen(self, words: str) -> None:
        r"""Opens a closed part of the page."""

        self.page.get_by_text(words, exact=True).click()


@pytest.fixture
def tab(browser: "Browser", served: Served) -> Iterator[Tab]:
    made = Tab(browser, served)
    yield made
    made.context.close()


@pytest.fixture
def other(browser: "Browser", served: Served) -> Iterator[Tab]:
    made = Tab(browser, served)
    yield made
    made.context.close()


def wait_for(condition: object, seconds: float = 120) -> None:
    r"""Waits until a function returns something true."""

    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
