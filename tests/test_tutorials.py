r"""The tutorials: their cells are Python with public names, and as they are built each ends in a picture."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import scoresde as ss

from .pages import ROOT, TUTORIALS

CELL = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
SITE = ROOT / "site" / "tutorials"
PICTURES = re.compile(r'<img [^>]*src="([^"]+\.(?:png|gif))"')


@pytest.fixture(params=TUTORIALS, ids=lambda page: page.stem)
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def cells(page: Path) -> list[str]:
    return CELL.findall(page.read_text())


def chains(tree: ast.Module) -> set[tuple[str, ...]]:
    r"""Names with their attributes, as `ss.plots.images`, in parts."""

    found = set()
    for node in ast.walk(tree):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts, node = [node.attr, *parts], node.value
        if isinstance(node, ast.Name):
            found.add((node.id, *parts))
    return found


def public(path: tuple[str, ...]) -> bool:
    r"""Whether a name under `ss` exists, and each module on its way offers the next one."""

    value: object = ss
    for name in path:
        if not hasattr(value, name) or name.startswith("_"):
            return False
        offered = getattr(value, "__all__", None)
        if inspect.ismodule(value) and offered is not None and name not in offered:
            return False
        value = getattr(value, name)
    return True


def test_there_are_eight_and_each_has_its_place_in_the_menu() -> None:
    menu = re.findall(r"- tutorials/(\w+)\.md", (ROOT / "mkdocs.yml").read_text())
    assert len(menu) == 8
    assert sorted(menu) == [page.stem for page in TUTORIALS]
    for first, second in zip(menu, menu[1:], strict=False):  # each leads to the next
        assert f"]({second}.md)" in (ROOT / "docs" / "tutorials" / f"{first}.md").read_text()


def test_cells_are_python_with_public_names(page: Path) -> None:
    tree = ast.parse("\n".join(cells(page)), str(page))
    names = {chain[1:] for chain in chains(tree) if chain[0] == "ss" and len(chain) > 1}
    assert len(names) > 3
    assert [".".join(name) for name in names if not public(name)] == []


def test_prose_rests_on_assertions_and_ends_in_where_to_go_next(page: Path) -> None:
    text = page.read_text()
    code = cells(page)
    assert sum(cell.count("assert ") for cell in code) >= 2
    assert re.search(r"^(Image\(|plt\.show\()", code[-1], re.MULTILINE)
    assert "## Where to go next" in text[text.rindex(code[-1]) :]


def hook() -> ModuleType:
    r"""What the site runs tutorials with."""

    file = ROOT / "docs" / "scripts" / "tutorials.py"
    found = importlib.util.spec_from_file_location("tutorials", file)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.site
def test_built_tutorial_ends_in_a_picture_and_has_no_error(page: Path) -> None:
    from PIL import Image

    file = SITE / f"{page.stem}.html"
    assert file.exists(), "run make docs"
    text = file.read_text()
    assert "Traceback" not in text
    assert "Warning" not in text
    body = text[text.index("<article") : text.rindex("</article>")]
    drawn = list(PICTURES.finditer(body))
    assert len(drawn) == sum(
        cell.count("Image(") + cell.count("plt.show(") for cell in cells(page)
    )
    assert body.rindex('<div class="output') < drawn[-1].start() < body.index("Where to go next")
    for found in drawn:
        picture = Image.open(SITE / found[1]).convert("RGB")
        assert len(picture.getcolors(1 << 20) or []) > 8  # something is drawn
        assert picture.getpixel((0, 0)) == (255, 255, 255)  # on white, in the dark theme, too


@pytest.mark.site
def test_notebook_to_take_away_has_the_cells_and_no_links(page: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="is of the extra docs")
    book = nbformat.read(SITE / f"{page.stem}.ipynb", as_version=4)
    nbformat.validate(book)
    assert [cell.source for cell in book.cells if cell.cell_type == "code"] == cells(page)
    assert not any("](" in cell.source for cell in book.cells if cell.cell_type == "markdown")


@pytest.mark.site
def test_what_cells_write_to_the_standard_error_ends_the_build() -> None:
    pytest.importorskip("nbclient", reason="is of the extra docs")
    made = hook()
    with pytest.raises(ValueError, match="writes to the standard error"):
        made.markdown(
            made.run(made.notebook("```python\nimport sys; sys.stderr.write('no')\n```")), "x"
        )


@pytest.mark.site
@pytest.mark.parametrize("widgets", [True, False])
def test_bars_of_runs_in_notebooks(widgets: bool) -> None:
    pytest.importorskip("nbclient", reason="is of the extra docs")
    if widgets:
        pytest.importorskip("ipywidgets")
    made = hook()
    lines = [
        "import sys, torch",
        "" if widgets else "sys.modules['ipywidgets'] = None",
        "import scoresde as ss",
        "model = ss.GaussianOracle(torch.zeros(2), 1.0)",
        "from scoresde.runs.progress import bar",
        "for _ in bar(range(3), desc='count'): pass",
        "s = ss.sample(model, 4, steps=5, progress=True)",
    ]
    done = made.run(made.notebook("```python\n" + "\n".join(lines) + "\n```"))
    outputs = done.cells[0].outputs
    shown = [output.data for output in outputs if output.output_type == "display_data"]
    written = "".join(output.text for output in outputs if output.output_type == "stream")
    if widgets:
        assert "application/vnd.jupyter.widget-view+json" in shown[0]
        assert written == ""
    else:
        assert shown == []
        assert "count: 100%" in written
        assert "Warning" not in written
