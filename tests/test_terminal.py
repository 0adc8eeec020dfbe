r"""What the command line and progress bars write, to a terminal and elsewhere."""

import functools
import io
import itertools
import re
import sys

import pytest
import torch
from rich.table import Table
from typer.testing import CliRunner

import scoresde as ss
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


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""No notebook, even if something has imported its kernel."""

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.mark.usefixtures("outside")
def test_bars_are_lively_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.bar(total=2, desc="tune") as shown:
        assert shown.mininterval == 0.1
        assert "tune:   0%" in screen.getvalue()


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_the_bar_of_a_run_appears_once_the_run_has_lasted(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(
        progress, "monotonic", functools.partial(next, itertools.count(0, seconds))
    )
    oracle = ss.GaussianOracle(torch.zeros(2), 1.0)
    ss.sample(oracle, 4, solver="ddim", steps=3, batch_size=2, progress=True)
    shown = screen.getvalue()
    assert ("ddim 100%" in shown) == (seconds > 0)
    assert bool(shown) == (seconds > 0)


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_of_notebooks_are_widgets_where_they_can_be(
    widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Screen(False))
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(progress, "find_spec", lambda name: sys if widgets else None)
    assert progress._watched()
    assert progress._kind().__module__ == ("tqdm.notebook" if widgets else "tqdm.std")


@pytest.mark.usefixtures("outside")
def test_bars_write_one_line_into_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Screen(False)
    monkeypatch.setattr(sys, "stderr", log)
    with progress.bar(total=500, desc="tune") as shown:
        start, elapsed = shown.start_t, itertools.count(0, 0.2)  # a clock of 100 seconds
        shown._time = lambda: start + next(elapsed)
        for i in range(500):
            shown.set_postfix_str(f"{i} bits", refresh=i % 2 == 0)
            shown.update()
        assert log.getvalue() == ""
    assert re.fullmatch(r"tune: 100%\|.*\| 500/500 .*499 bits\]\n", log.getvalue())
    assert list(progress.bar([1, 2], desc="none", shown=False)) == [1, 2]
    assert list(progress.bar([1, 2], desc="more")) == [1, 2]
    lines = log.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["tune", "more"]


@pytest.mark.usefixtures("outside")
def test_bars_of_runs_that_broke_say_how_far_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Screen(False)
    monkeypatch.setattr(sys, "stderr", log)
    with pytest.raises(KeyError), progress.bar(total=4, desc="train") as shown:
        shown.update()
        raise KeyError
    assert log.getvalue().startswith("train:  25%")
    assert log.getvalue().count("\n") == 1


@pytest.mark.usefixtures("outside")
def test_run_writes_one_line_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Screen(False)
    monkeypatch.setattr(sys, "stderr", log)
    model = ss.GaussianOracle(torch.zeros(2), 1.0)
    ss.sample(model, 4, solver="ddim", steps=20, batch_size=2, progress=True)
    assert re.fullmatch(r"ddim 100%\|.*\| [\d:]+<00:00\n", log.getvalue())
