r"""The command that trains: from a file to a folder that other commands take, with sentences for what is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde as ss
from scoresde.cli import main
from scoresde.training import objective

NETWORK = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x, t, label=None):
        return self.last(torch.tanh(self.first(torch.cat([x, t[:, None]], 1))))
"""
SMALL = ("--setting", "width=8", "--setting", "multipliers=[1]", "--setting", "blocks=1")


def said(
    *words: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["scoresde", *map(str, words)])
    status = 0
    try:
        main()
    except SystemExit as error:
        status = int(error.code or 0)
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    x = torch.linspace(0, 40, 40 * 16).sin().reshape(40, 1, 4, 4)
    np.savez(
        "images.npz", x=((x + 1) * 7.5).round().numpy().astype(np.uint8), label=np.arange(40) % 2
    )
    return lambda *words: said(*words, monkeypatch=monkeypatch, capsys=capsys)


def test_a_file_becomes_a_folder_that_is_sampled(run: Any) -> None:
    command = ("train", "images.npz", "--bins", 16, "--steps", 4, "--batch-size", 8, "--validation", 0.25,
               "--out", "new/model", *SMALL)  # fmt: skip
    status, out, _ = run(*command, "--plot", "losses.png", "--json")
    told = json.loads(out)
    assert (status, told["steps"]) == (0, 4)
    assert {"bits/dim", "bits/dim, conditions dropped"} <= set(told)
    assert Path("losses.png").exists()
    status, out, _ = run(
        "sample", "new/model", "-n", 2, "--label", 1, "--steps", 3, "--out", "s.npz"
    )
    assert status == 0
    assert np.load("s.npz")["x"].shape == (2, 1, 4, 4)
    status, out, _ = run(*command)
    assert "at 0." in out  # the table
    status, _, err = run(*command[:-6], *SMALL, "--lr", 0.5)
    assert status == 1
    assert "holds a training with lr=0.002" in err or "with --lr" in err


def test_a_finished_training_tells_its_check_again(run: Any) -> None:
    command = (
        "train",
        "images.npz",
        "--bins",
        16,
        "--steps",
        2,
        "--validation",
        0.25,
        "--out",
        "m",
        *SMALL,
    )
    first, again = (json.loads(run(*command, "--json")[1]) for _ in range(2))
    assert first == again
    assert first["check"]


def test_pairs_lead_from_a_file_of_z_to_data_and_back(run: Any) -> None:
    x = torch.linspace(0, 40, 80).sin().reshape(40, 2).numpy()
    np.savez("pairs.npz", x=x, z=x + 1)
    np.save("z.npy", x + 1)
    status, _, err = run(
        "train", "pairs.npz", "--coupling", "paired", "--steps", 2, "--validation", 0, "--out", "m"
    )
    assert status == 0, err
    for file in ("pairs.npz", "z.npy"):
        status, _, err = run("decode", "m", "--data", file, "--out", "back.npy", "--steps", 4)
        assert status == 0, err
        wanted = ss.decode(ss.load("m"), torch.from_numpy(x + 1), steps=4).x
        assert np.array_equal(np.load("back.npy"), wanted.numpy())
    status, _, err = run("encode", "m", "--data", "pairs.npz", "--out", "z.npz", "--steps", 4)
    assert status == 0, err
    status, _, err = run("decode", "m", "--data", "z.npz", "--out", "back.npy")
    assert status == 0, err


def test_networks_of_ones_own_are_named_as_models_are(run: Any) -> None:
    Path("mine_to_train.py").write_text(NETWORK)
    np.save("points.npy", np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))
    status, _, err = run(
        "train", "points.npy", "--network", "mine_to_train.py:Tiny", "--setting", "width=6", "--steps", 3,
        "--validation", 0.25, "--process", "interpolant", "--predicts", "velocity", "--coupling", "ot",
        "--out", "points",
    )  # fmt: skip
    assert status == 0, err
    model = ss.load("points", trust=True)
    assert (model.learned, repr(model.process)[:12]) == ("flow", "Interpolant(")
    assert model.network.first.out_features == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("none.npz",), "there is no file none.npz"),
        (("images.npz",), "pass --bins, the number of its levels"),
        (("images.npz", "--bins", 4), "from 0 to 3, but reaches from 0 to 15; pass --bins 16 or more"),
        (("images.npz", "--bins", 16, "--process", "x"), "--process must be one of edm, vp"),
        (("images.npz", "--bins", 16, "--network", "Net"), "--network must be one of"),
        (("images.npz", "--bins", 16, "--setting", "width"), "--setting must be NAME=VALUE"),
        (("images.npz", "--bins", 16, "--validation", 0, "--setting", "no=1"), "settings has 'no', which UNet"),
        (("images.npz", "--bins", 16, "--validation", 0, "--precision", "half"), "--precision must be 'float32'"),
        (("images.npz", "--bins", 16, "--validation", 0.01), "--validation 0.01 holds out 0 of the 40"),
        (("digits", "--lr", 1), "--lr has no effect on a recipe"),
        (("images.npz", "--bins", 16, "--steps", 0), "--steps must be at least 1"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(run: Any, words: tuple[object, ...], sentence: str) -> None:
    status, _, err = run("train", *words)
    assert status == 1
    assert err.startswith("error: ")
    assert sentence in " ".join(err.split())
    assert not Path("runs").exists()


def test_a_failure_is_a_sentence_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        objective.LOSSES, "denoising", lambda model, x, *rest, **c: model.denoise(x, torch.ones(len(x)), **c)
        .flatten(1).mean(1) * torch.nan,
    )  # fmt: skip
    status, _, err = run("train", "images.npz", "--bins", 16, "--validation", 0, *SMALL)
    assert status == 1
    assert "error: the loss is nan at step 1" in " ".join(err.split())
