r"""Type checkers accept in users' files what runs accept."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tests" / "data" / "typed_user.py"


@pytest.mark.filterwarnings("ignore")
def test_what_users_write_runs() -> None:
    runpy.run_path(str(SCRIPT))


@pytest.mark.slow
def test_what_users_write_passes_strict_type_checks(tmp_path: Path) -> None:
    (tmp_path / SCRIPT.name).write_text(SCRIPT.read_text())
    words = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
        SCRIPT.name,
    ]
    found = subprocess.run(
        words,
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
