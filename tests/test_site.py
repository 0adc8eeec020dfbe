r"""The site as it is built: every formula is rendered, by what lies beside the pages."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .pages import PAGES, ROOT, formulas, name_of
from .test_reference import PAGE as REFERENCE
from .test_reference import SHOWN, functions, options, shown_formulas

pytestmark = pytest.mark.site
SITE = ROOT / "site"
SOURCES = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
WRITTEN = [page for page in SOURCES if page != REFERENCE]  # whose formulas are their own
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    r"""A built page: its formulas, what it says beside them and beside code, and what it loads."""

    NOT_PROSE = ("code", "pre", "script", "style")
    EMPTY = ("img", "link", "meta", "input", "br", "hr", "path", "source")

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.formulas: list[str] = []
        self.prose: list[str] = []
        self.loads: list[str] = []
        self.places: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "link" and said["rel"] in ("stylesheet", "icon", "preconnect"):
            self.loads.append(said["href"])
        self.places += [said["id"]] if "id" in said else []
        if "src" in said:
            self.loads.append(said["src"])
        if tag not in self.EMPTY:
            self.open.append((tag, said.get("class", "")))
        if "arithmatex" in said.get("class", ""):
            self.formulas.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any("arithmatex" in classes for _, classes in self.open):
            self.formulas[-1] += data
        elif not any(tag in self.NOT_PROSE for tag, _ in self.open):
            self.prose.append(data)


def built(source: Path) -> Path:
    file = SITE / Path(name_of(source)).with_suffix(".html")
    assert file.exists(), "run make docs"
    return file


@pytest.fixture(params=SOURCES, ids=name_of)
def source(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def shown(page: Page) -> list[str]:
    r"""The formulas of a built page, without the signs around them."""

    return [formula.strip()[2:-2].strip() for formula in page.formulas]  # of \( \) or \[ \]


@pytest.mark.parametrize("source", WRITTEN, ids=name_of)
def test_every_formula_of_the_source_is_one_of_the_page(source: Path) -> None:
    assert shown(Page(built(source))) == formulas(source.read_text())


def test_every_formula_of_public_docstrings_is_one_of_the_reference() -> None:
    of_page = set(shown(Page(built(REFERENCE))))
    of_docstrings = {formula for name in SHOWN for formula in shown_formulas(name)}
    assert len(of_docstrings) > 60
    assert of_docstrings <= of_page


def test_every_public_name_has_its_place_in_the_reference() -> None:
    assert set(SHOWN) <= set(Page(built(REFERENCE)).places)


def test_every_option_of_every_function_stands_in_the_reference() -> None:
    explained = set(re.findall(r"<code>(\w+)</code>", built(REFERENCE).read_text()))
    for name in functions():
        assert options(name) <= explained, name


def test_pages_have_light_and_dark_and_are_searched() -> None:
    page = built(ROOT / "docs" / "index.md").read_text()
    assert {"default", "slate"} <= set(re.findall(r'data-md-color-scheme="(\w+)"', page))
    found = json.loads((SITE / "search" / "search_index.json").read_text())["docs"]
    searched = {urlsplit(entry["location"]).path for entry in found}
    assert {str(Path(name_of(page)).with_suffix(".html")) for page in SOURCES} <= searched


def test_no_formula_or_role_is_left_in_prose(source: Path) -> None:
    prose = "".join(Page(built(source)).prose)
    assert not re.findall(r".*(?:\$|\\[(\[]|:[a-z]+:`|\.\. [a-z]+::).*", prose)


def test_pages_load_the_local_katex_and_nothing_from_elsewhere(source: Path) -> None:
    loads = Page(built(source)).loads
    here = built(source).parent
    paths = [urlsplit(entry).path for entry in loads if not entry.startswith("data:")]
    files = [(here / path).resolve() for path in paths]
    assert [entry for entry in loads if urlsplit(entry).netloc] == []
    assert [file for file in files if not file.exists()] == []
    for name in ("katex/katex.min.css", "katex/katex.min.js", "scripts/formulas.js"):
        assert SITE / name in files


def test_fonts_of_katex_lie_beside_it() -> None:
    style = SITE / "katex" / "katex.min.css"
    fonts = re.findall(r"url\(([^)]*\.woff2)\)", style.read_text())
    assert len(fonts) > 10
    assert [font for font in fonts if not (style.parent / font).exists()] == []


def test_katex_takes_every_formula() -> None:
    every = [formula for source in SOURCES for formula in shown(Page(built(source)))]
    script = """
        const katex = require(process.argv[1]);
        for (const formula of JSON.parse(process.argv[2]))
            katex.renderToString(formula, { throwOnError: true, strict: "error" });
    """
    command = ["node", "-e", script, str(SITE / "katex" / "katex.min.js"), json.dumps(every)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(every) > 50


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_browser_without_a_network_renders_every_formula(source: Path) -> None:
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000", "--dump-dom",
        built(source).as_uri(),
    ]  # fmt: skip
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert page.count('<span class="katex">') == len(Page(built(source)).formulas)
    assert "katex-error" not in page
