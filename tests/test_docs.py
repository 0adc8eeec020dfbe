r"""Every snippet of the README and the docs runs, and what the docs say of solvers is true."""

import re
from pathlib import Path

import pytest
import torch

import solvers

from .pages import PAGES, ROOT, TUTORIALS, largest_difference, name_of, snippets

SNIPPETS = [
    (page, i, code)
    for page in PAGES
    if page not in TUTORIALS
    for i, code in enumerate(snippets(page))
]
SLOW = {"training.md-2", "likelihood.md-3", "which_diffusion.md-3", "symbols.md-1"}
CLOSE = 2e-4  # of what others' calls return and ours
MIGRATING = [page for page in PAGES if page.parent.name == "migrating"]


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if name in SLOW else []


@pytest.mark.parametrize(
    ("page", "number", "code"),
    [
        pytest.param(page, i, code, id=(name := f"{name_of(page)}-{i}"), marks=marks(name))
        for page, i, code in SNIPPETS
    ],
)
def test_snippet_runs(
    page: Path,
    number: int,
    code: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    exec(compile(code, f"{page.name}:{number}", "exec"), {})
    said = capsys.readouterr().out.strip()
    assert said
    if page in MIGRATING:
        assert largest_difference(said) < CLOSE


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" not in target
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_table_of_solvers_is_complete() -> None:
    text = (ROOT / "docs" / "solvers.md").read_text()
    for name in (*solvers.available(), *solvers.catalogue.REFUSED):
        assert f"`{name}`" in text, f"run python -m benchmarks.tables: {name} is missing"
