r"""What the command line and progress bars write, to a terminal and elsewhere."""

import io
import itertools
import sys

import pytest
from rich.table import Table
from typer.testing import CliRunner

from scoresde.cli.app import app
from scoresde.cli.options import print_table, show
from scoresde.runs import progress


@pytest.fixture
def wide() -> Table:
    table = Table(*(f"column {i}" for i in range(20)), box=None)
    table.add_row(*(f"0.0877412{i:02d}" for i in range(20)))
    return table


def test_tables_in_pipes_hold_every_number(
    wide: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(wide)
    written = capsys.readouterr().out
    assert len(written.splitlines()) == 2
    assert written.split()[-20:] == [f"0.0877412{i:02d}" for i in range(20)]


def test_tables_on_narrow_terminals_lose_no_digit(
    wide: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "COLUMNS": "60",
        "FORCE_COLOR": "1",
        "NO_COLOR": "1",
        "TERM": "xterm",
    }.items():
        monkeypatch.setenv(name, value)
    show([{"plan": "unipc", "error median": 0.0877412, "error max": 0.1}] * 2)
    print_table(wide)
    written = capsys.readouterr().out
    assert "…" not in written
    assert "0.0877412" in written


@pytest.mark.parametrize("line", ["suggest digits --budget 8", "solvers", "info digits"])
@pytest.mark.parametrize("columns", [None, "80"])
def test_commands_write_whole_tables_into_pipes(
    line: str, columns: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 80


class Screen(io.StringIO):
    r"""A stream that is a terminal, or is none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(("terminal", "notebook"), [(True, False), (False, True), (False, False)])
def test_bars_are_lively_where_someone_watches(
    terminal: bool, notebook: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Screen(terminal))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress.bar(total=2, desc="tune") as shown:
        assert shown.mininterval == (0.1 if terminal or notebook else progress.PATIENCE)


def test_bars_write_few_lines_into_files(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Screen(False)
    monkeypatch.setattr(sys, "stderr", file)
    with progress.bar(total=500, desc="tune") as shown:
        start, elapsed = shown.start_t, itertools.count(0, 0.2)  # a clock of 100 seconds
        shown._time = lambda: start + next(elapsed)
        for i in range(500):
            shown.set_postfix_str(f"{i} bits", refresh=False)
            shown.update()
    states = file.getvalue().strip().split("\r")
    assert 3 <= len(states) <= 6
    assert states[-1].startswith("tune: 100%")
    assert list(progress.bar([1, 2], desc="no", shown=False)) == [1, 2]
    assert "no" not in file.getvalue()
