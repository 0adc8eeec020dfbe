r"""Jobs on the command line: `--out` with a folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde as ss
from scoresde.cli import models

from .test_cli import answer, refusal

MODEL = """
import torch
import scoresde as ss

pair = ss.MixtureOracle(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]).double(), 0.5)
"""
NAME = "own_pair.py:pair"
PAIR = ss.MixtureOracle(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]).double(), 0.5)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(models, "OWN", set())
    (tmp_path / "own_pair.py").write_text(MODEL)
    yield tmp_path
    sys.modules.pop("own_pair", None)


def test_samples_go_into_a_folder_and_say_how_far_they_are(place: Path) -> None:
    where = ["sample", NAME, "-n", 7, "--steps", 4, "--seed", 3, "--label", 1, "--out", "many"]
    said = answer(*where, "--shard-size", 3, folder=place)
    right = ss.sample(PAIR, 7, steps=4, seed=3, label=1, dtype=torch.float32).x
    torch.testing.assert_close(ss.jobs.open(place / "many").tensor(), right)
    assert said["samples"] == 7
    assert said["failed"] == 0
    (place / "many" / "shards" / "0000001.safetensors").unlink()
    said = answer(*where, "--status", folder=place)
    assert said["samples"] == "4 of 7"
    assert said["running"] == "no"
    assert answer(*where, folder=place)["samples"] == 7
    assert "steps= was 4, but is 5" in refusal(*where, "--steps", 5, folder=place)
    assert "--first-index" in refusal(*where, "--first-index", 5, folder=place)


def test_what_needs_a_folder_says_so(place: Path) -> None:
    for option in (["--workers", 2], ["--status"]):
        for out in ([], ["--out", "x.npz"]):
            words = refusal("sample", NAME, *option, *out, folder=place)
            assert f"{option[0]} needs --out with a folder" in words
    for workers in ("0", "some", "http://there"):
        words = refusal("sample", NAME, "--workers", workers, "--out", "many", folder=place)
        assert "workers" in words
        assert workers in words
    assert not (place / "many").exists()


def test_data_goes_through_folders(place: Path) -> None:
    x = PAIR.data(5)
    np.save(place / "x.npy", x.numpy())
    common = [NAME, "--data", "x.npy", "--shard-size", 2]
    said = answer("likelihood", *common, "--out", "nats", folder=place)
    nats = ss.log_likelihood(PAIR, x).nats
    assert abs(said["nats, mean"] - float(nats.mean())) < 1e-3
    answer("encode", *common, "--solver", "edict", "--steps", 6, "--out", "there", folder=place)
    back = ["decode", NAME, "--data", "there", "--no-denoise", "--out", "back"]
    answer(*back, folder=place)
    torch.testing.assert_close(ss.jobs.open(place / "back").tensor(), x, rtol=0, atol=1e-6)
    edit = ["edit", *common, "--target", 1, "--method", "noise", "--strength", 0.5, "--steps", 6]
    answer(*edit, "--out", "edits", folder=place)
    right = ss.edit(PAIR, PAIR.given(label=1), x, method="noise", strength=0.5, steps=6).x
    torch.testing.assert_close(ss.jobs.open(place / "edits").tensor(), right)
    assert "--plot" in refusal(*edit, "--out", "others", "--plot", "x.png", folder=place)
