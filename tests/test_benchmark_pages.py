r"""The tables of the docs are those of the results, and the results are those that the tables show."""

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks import figures, report, suggestions, tables
from scoresde.comparing.suggestion import MEASURED

PAGES = sorted(tables.DOCS.glob("*.md"))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rows = [
        {"solver": "ddim", "calls": 5, "error": 0.123456, "note": None},
        {"solver": "heun, by hand", "calls": None, "error": 2.0, "note": None},
    ]
    report.write("trial", rows, {"command": "python -m trial", "torch": "2", "threads": 2})
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmark_tables_are_those_of_the_results(page: Path) -> None:
    assert tables.filled(page.read_text()) == page.read_text(), "run python -m benchmarks.tables"


def test_every_benchmark_is_on_a_page_with_its_command() -> None:
    shown = [mark for page in PAGES for mark in tables.marks(page.read_text())]
    files = {file.stem for file in report.RESULTS.glob("*.csv")}
    assert {of.split(" | ")[0] for kind, of in shown if kind != "run"} == files
    assert {of for kind, of in shown if kind == "run"} == files == set(report.runs())


def test_suggestions_are_those_of_the_benchmark() -> None:
    assert json.loads(MEASURED.read_text()) == suggestions.content()


def test_pictures_of_the_benchmark_page_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "PICTURES", tmp_path)
    figures.main()
    page = (tables.DOCS / "benchmarks.md").read_text()
    drawn = sorted(file.name for file in tmp_path.iterdir())
    assert len(drawn) == 5
    assert all(f"](pictures/{name})" in page for name in drawn)


# ---- files


def test_benchmark_rows_are_read_as_they_were_written(results: Path) -> None:
    rows = [
        {"name": "dopri5, VP", "whole": 123456, "yes": True, "number": 123.456, "even": 4.0},
        {"name": 'a "b"', "number": -1.23456e-7, "list": (1.0, 0.25), "none": None},
        {"name": "", "number": math.inf, "even": 123456.0},
    ]
    report.write("other", rows, {"threads": 1})
    empty = dict.fromkeys(("name", "whole", "yes", "number", "even", "list", "none"))
    assert report.load("other") == [
        {
            **empty,
            "name": "dopri5, VP",
            "whole": 123456,
            "yes": True,
            "number": 123.5,
            "even": 4.0,
        },
        {**empty, "name": 'a "b"', "number": -1.235e-7, "list": "1.0 0.25"},
        {**empty, "number": math.inf, "even": 123500.0},
    ]
    kinds = [type(value) for value in report.load("other")[0].values()]
    assert kinds[1:5] == [int, bool, float, float]
    assert list(report.runs()) == ["other", "trial"]


# ---- marks


def filled(mark: str, before: str = "") -> str:
    return tables.filled(f"Words.\n\n<!-- {mark} -->\n{before}<!-- end -->\n")


def test_marks_are_filled_with_tables(results: Path) -> None:
    page = filled("table: trial | without error", "what stood there\n")
    assert page == (
        "Words.\n\n<!-- table: trial | without error -->\n\n"
        "| solver | calls |\n|---|---|\n| ddim | 5 |\n| heun, by hand |  |\n\n<!-- end -->\n"
    )
    assert tables.filled(page) == page
    for condition in ("solver = ddim; heun, by hand", "calls != 5", "error = 2.0"):
        assert "| heun, by hand | " in filled(f"table: trial | {condition}")
    for condition in ("calls != 5", "with calls", "error = 0.1235"):
        assert filled(f"table: trial | {condition}").count("\n| ") == 2
    assert "`python -m trial` (torch 2, 2 threads):" in filled("run: trial")


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("tabel: trial", "must be one of run, table, .* not 'tabel'"),
        ("table: trail", "no result is called 'trail'; there are trial"),
        ("run: trail", "no result is called 'trail'; there are trial"),
        ("table: trial | steps = 5", "no column is called 'steps'; there are solver, calls"),
        ("table: trial | solver = dimm", "names what no row has; there are"),
        ("table: trial | with note", "no row of trial is left by 'with note'"),
        ("table: trial | calls", "'calls' must be of the form"),
    ],
)
def test_marks_that_name_nothing_are_refused(mark: str, said: str, results: Path) -> None:
    with pytest.raises(ValueError, match=said):
        filled(mark)


def test_marks_without_an_end_are_refused(results: Path) -> None:
    for page in ("<!-- table: trial -->\n", "<!-- end -->\n"):
        with pytest.raises(ValueError, match="a mark lacks its"):
            tables.filled(page)


def test_the_catalogue_tells_its_notes(results: Path) -> None:
    page = filled("catalogue")
    assert "| `ddim` | semi-linear | 1 |  | steps | 1 |  |" in page
    assert re.search(
        r"\| `lattice_heun` \| .* \| in the axes of the data; undone to the last bit \|", page
    )
