r"""The command line speaks its own words, and says what is kept."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer

import scoresde as ss
from scoresde.cli import given, words
from scoresde.cli.app import app, run
from scoresde.cli.files import check_out

DIGITS = ss.load("digits")


def said(*arguments: object, folder: Path, monkeypatch: pytest.MonkeyPatch,
         capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:  # fmt: skip
    r"""The exit status of a command, and what it prints, in this process, which starts at once."""

    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["scoresde", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        run()
    out, err = capsys.readouterr()
    return done.value.code or 0, out, " ".join(err.split())


SENTENCES = {
    ("sample", "digits", "--steps", "5", "--rtol", "1e-3"): "--steps has no effect with --rtol, since",
    ("sample", "digits", "--steps", "0"): "--steps must be at least 1, but is 0.",
    ("sample", "digits", "--steps", "1000000000"): "--steps must be at most 1000000, but is 1000000000.",
    ("sample", "digits", "--solver", "em", "--eta", "1e300"): "--eta must be a finite number >= 0, at most 1e+15",
    ("sample", "digits", "--solver", "nope"): "`scoresde solvers` lists all",
    ("sample", "digits", "--solver", "recurrent:repeats=0"): "repeats of recurrent must be at least 1",
    ("sample", "digits", "-n", "0"): "-n must be at least 1, but is 0.",
    ("sample", "digits", "-n", "9223372036854775808"): "-n must fit into 64 bits",
    ("sample", "digits", "-n", "100000000000"): "in float64, but the device has",
    ("sample", "digits", "--seed", "9223372036854775808"): "--seed must fit into 64 bits",
    ("sample", "digits", "--first-index", "-1"): "--first-index must be at least 0, but is -1.",
    ("sample", "digits", "--label", "0,1,2", "-n", "4"): "--label has 3 entries for 4 samples",
    ("sample", "digits", "--label", "three"): "--label must be numbers separated by commas",
    ("sample", "digits", "--condition", "size"): "--condition must be NAME=VALUE",
    ("sample", "digits", "--condition", "size=3"): "the model takes no condition 'size'; it takes: label.",
    ("sample", "digits", "--condition", "label=3", "--label", "3"): "--condition label is given twice",
    ("sample", "digits", "--guidance", "2"): "pass --label or --condition.",
    ("sample", "digits", "--out", "folder.png"): "folder.png is a folder; pass the name of a file in it.",
    ("sample", "digits", "--out", "/proc/nothing/a.png"): "/proc/nothing/a.png cannot be written",
    ("sample", "digits", "--out", "a.txt"): "a.txt must end in one of .npz, .npy, .png, not '.txt'.",
    ("edit", "digits", "--data", "x.npy", "--target", "3"): "exactly one of --noise-level and --strength",
    ("edit", "digits", "--data", "x.npy", "--target", "3", "--strength", "2"): "--strength must lie in (0, 1]",
    ("edit", "digits", "--data", "x.npy", "--strength", "1", "--target", "0.5"): "--target must be whole",
    ("edit", "digits", "--data", "x.npy", "--strength", "1", "--target", "3", "--animate", "folder.gif"):
        "folder.gif is a folder",
    ("likelihood", "digits", "--data", "x.npy", "--probes", "0"): "--probes must be at least 1, but is 0.",
    ("likelihood", "digits", "--data", "x.npy", "--t-min", "1e-9"): "--t-min must lie in [0.002, 80]",
    ("likelihood", "digits", "--data", "x.npy", "--batch-size", "0"): "--batch-size must be at least 1",
    ("likelihood", "digits", "--data", "x.npy", "--out", "folder.csv"): "folder.csv is a folder",
    ("encode", "digits", "--data", "x.npy", "--out", "folder.npz"): "folder.npz is a folder",
    ("compare", "digits", "-n", "2"): "-n must be at least 4, but is 2.",
    ("compare", "digits", "--workers", "0"): "--workers must be at least 1, but is 0",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--workers", "two"): "--workers must be a number",
    ("compare", "digits", "--plot", "folder.png"): "folder.png is a folder",
    ("tune", "digits", "--budget", "1", "--out", "p.json"): "--budget must be at least 2, but is 1.",
    ("tune", "digits", "--budget", "4", "--out", "folder.json"): "folder.json is a folder",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--stochastic"): "--stochastic is for a distance to",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--each"): "--each is for several --scales",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--label", "3", "--scales", "1,2", "--guidance", "3"):
        "--scales replaces the scale of --guidance, which is '3'",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--label", "3", "--scales", "1,2", "--learned"):
        "--learned is for one model and plans without noise",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--scales", "1,2"): "pass --label or --condition.",
    ("tune", "digits", "--budget", "4", "--out", "p.json", "--label", "3", "--scales", "1,1"):
        "--scales must differ, but are '1,1'",
    ("plot", "trajectory", "digits", "--out", "folder.png"): "folder.png is a folder",
    ("train", "digits", "--steps", "0"): "--steps must be at least 1, but is 0.",
    ("train", "digits", "--seed", "-1"): "--seed must be at least 0, but is -1.",
}  # fmt: skip


@pytest.mark.parametrize("arguments", SENTENCES, ids=" ".join)
def test_errors_are_in_the_words_of_the_command_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for ending in ("png", "gif", "csv", "npz", "json"):
        (tmp_path / f"folder.{ending}").mkdir()
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), dtype=np.float32))
    status, out, err = said(*arguments, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 1
    assert SENTENCES[arguments] in err
    assert not out
    python = [name for name in words.options_of(app, list(arguments)) if f" {name}=" in err]
    assert not python


def test_settings_of_solvers_stay_as_they_are_written() -> None:
    known = {"repeats": "--repeats", "steps": "--steps", "rtol": "--rtol"}
    told = "pass steps=5, or 'recurrent:repeats=2' with rtol= and x=3; steps= has none."
    assert words.spoken(told, known) == (
        "pass --steps 5, or 'recurrent:repeats=2' with --rtol and x=3; --steps has none."
    )
    assert words.spoken("steps must be 1.", known) == "--steps must be 1."


def test_conditions_by_words(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.ones((3, 4)))
    found = given.conditions("0,1,2", ["size=0.5", f"mask={tmp_path / 'c.npy'}", "rate=1,2.5,3"])
    assert found["label"].tolist() == [0, 1, 2]
    assert found["label"].dtype == torch.int64
    assert found["size"].tolist() == [0.5]
    assert found["mask"].shape == (3, 4)
    assert found["rate"].tolist() == [1.0, 2.5, 3.0]
    assert given.largest(found, 16) == 3
    assert given.largest({}, 16) == 16
    assert given.plain(given.conditions("3")) == {"label": 3}


def test_labels_as_a_list_are_those_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    want = ss.sample(DIGITS, 3, steps=2, label=torch.tensor([7, 8, 9])).x
    for options in (("--label", "7,8,9"), ("--condition", "label=7,8,9")):
        arguments = ("sample", "digits", "--steps", 2, "--out", "a.npy", *options)
        assert said(*arguments, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)[0] == 0
        assert np.array_equal(np.load(tmp_path / "a.npy"), want.numpy())


def test_what_is_not_kept_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("sample", "digits", "-n", 2, "--steps", 1)
    _, _, err = said(*arguments, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "samples are not kept: pass --out" in err
    _, _, err = said(
        *arguments, "--out", "a.npy", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys
    )
    assert "not kept" not in err
    status, out, _ = said("--version", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert (status, out) == (0, "scoresde 0.1.0\n")


def test_a_stop_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scoresde.cli import likelihood

    np.save(tmp_path / "x.npy", np.zeros((3, 1, 8, 8), dtype=np.float32))
    scored = []

    def density(*arguments: object) -> object:
        if scored:
            raise KeyboardInterrupt
        scored.append(arguments)
        entry = torch.zeros(2)
        return SimpleNamespace(nats=entry, stderr=entry, total=entry, calls=entry.int(), derivatives=entry.int(),
                               budget={"path": entry}, cures={})  # fmt: skip

    monkeypatch.setattr(likelihood, "_density", density)
    arguments = ("likelihood", "digits", "--data", "x.npy", "--batch-size", 2, "--out", "s.csv")  # fmt: skip
    status, _, err = said(*arguments, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 130
    assert "stopped: 2 of 3 rows are in s.csv, and the same command continues." in err
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0].startswith("# {")
    assert not any("#" in line for line in lines[1:])
    assert len(lines) == 4  # the setup, names, and two rows: read them with comment="#"


def test_files_to_write_are_looked_at_first(tmp_path: Path) -> None:
    check_out(None, tmp_path / "new" / "folder" / "a.png")
    assert not (tmp_path / "new").exists()  # nothing is made before there is something to write
    (tmp_path / "a.npy").write_text("kept")
    check_out(tmp_path / "a.npy")
    assert (tmp_path / "a.npy").read_text() == "kept"
    with pytest.raises(ValueError, match="cannot be written"):
        check_out(tmp_path / "a.npy" / "b.npy")
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(ValueError, match="cannot be written"):
            check_out(tmp_path / "b.npy")


def test_train_names_its_own_options() -> None:
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    told = {parameter.name: parameter.help for parameter in command.params}
    assert "training" in told["steps"]
    assert "weights" in told["seed"]


def test_each_scale_gets_its_plan_and_all_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def search(models: object, budget: int, **options: object) -> ss.Plan:
        asked.append((models, options["file"]))
        raised = {"samples": 4, "calls": 4, "error": {}, "distances": {}, "best before": []}
        return ss.Plan({"solver": "ddim", "steps": 3}, figures=raised)

    monkeypatch.setattr("scoresde.cli.tune.search", search)
    arguments = [
        "tune",
        "digits",
        "--budget",
        "4",
        "--label",
        "3",
        "--guidance",
        "projected:norm=2",
    ]
    arguments += ["--scales", "2,3.5", "--out", "p.json", "--state", "s.json"]
    place = {"folder": tmp_path, "monkeypatch": monkeypatch, "capsys": capsys}
    assert said(*arguments, **place)[0] == 0
    [(models, file)] = asked
    assert {name: one.fingerprint.split("guided by ")[1] for name, one in models.items()} == {
        "2": "projected 2, parallel 0, norm 2",
        "3.5": "projected 3.5, parallel 0, norm 2",
    }
    assert (file, (tmp_path / "p.json").exists()) == (Path("s.json"), True)
    asked.clear()
    out = said(*arguments, "--each", **place)[1]
    assert [str(file) for _, file in asked] == ["s_2.json", "s_3.5.json"]
    assert all((tmp_path / f"p_{name}.json").exists() for name in ("2", "3.5"))
    assert "--plan p_3.5.json" in out
