r"""Every snippet of the README and the docs runs, and what the docs say of solvers is true."""

import re
from pathlib import Path

import pytest
import torch

import solvers

from .pages import PAGES, ROOT, TUTORIALS

SNIPPETS = [
    (page.name, i, code)
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(
    ("page", "number", "code"), SNIPPETS, ids=[f"{p}-{i}" for p, i, _ in SNIPPETS]
)
def test_snippet_runs(
    page: str,
    number: int,
    code: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    exec(compile(code, f"{page}:{number}", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_every_link_leads_somewhere() -> None:
    for page in [*PAGES, *TUTORIALS]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" not in target
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_table_of_solvers_is_complete() -> None:
    text = (ROOT / "docs" / "solvers.md").read_text()
    for name in (*solvers.available(), *solvers.catalogue.REFUSED):
        assert f"`{name}`" in text, f"run python -m benchmarks.tables: {name} is missing"
