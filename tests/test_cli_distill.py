r"""The command that makes a few-step model."""

from pathlib import Path

import torch

import scoresde as ss
from scoresde.distilling import Trajectories
from scoresde.networks import UNet

from .test_cli import answer, refusal, within

SETTINGS = {"width": 8, "multipliers": [1], "blocks": 1, "classes": 2}
FEW = ("--paths", 4, "--solver", "ddim", "--training-steps", 3)


def small(folder: Path) -> Path:
    r"""Writes a small model of images with two labels."""

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(**SETTINGS)
    model = ss.NetworkScore(network, ss.EDM(), "edm", conditions=["label"], shape=(1, 4, 4))
    return ss.save(
        model.float(), folder / "teacher", {"network": {"name": "UNet", "settings": SETTINGS}}
    )


def test_a_few_step_model_is_made_and_sampled(tmp_path: Path) -> None:
    file = small(tmp_path)
    done = within("distill", file, "--out", "few", *FEW, "--steps", 3, folder=tmp_path)
    assert done.exit_code == 0, done.exception
    model = ss.load(tmp_path / "few")
    assert (model.learned, model.card["plan"]) == (
        "consistency",
        {"solver": "consistency", "steps": 3},
    )
    assert model.card["teacher"] == ss.load(file).fingerprint
    paths = Trajectories.load(tmp_path / "few" / "labelled.safetensors")
    assert paths.condition["label"].tolist() == [0, 1]
    drawn = answer("sample", "few", "-n", 2, "--steps", 3, "--out", "x.npz", folder=tmp_path)
    assert drawn["calls"] == 3


def test_the_same_command_goes_on(tmp_path: Path) -> None:
    file = small(tmp_path)
    command = ("distill", file, "--out", "few", *FEW)
    assert within(*command, folder=tmp_path).exit_code == 0
    (tmp_path / "few" / "model.safetensors").rename(tmp_path / "first.safetensors")
    before = (tmp_path / "few" / "paths.safetensors").stat().st_mtime_ns
    assert within(*command, folder=tmp_path).exit_code == 0
    assert (tmp_path / "few" / "paths.safetensors").stat().st_mtime_ns == before
    first, again = (tmp_path / name for name in ("first.safetensors", "few/model.safetensors"))
    assert first.read_bytes() == again.read_bytes()


def test_refusals_come_before_the_work(tmp_path: Path) -> None:
    assert "--training-steps must be" in refusal(
        "distill", "digits", "--out", "few", "--training-steps", 0, folder=tmp_path
    )
    assert (
        "does not exist" in refusal("distill", "nothing", "--out", "few", folder=tmp_path) or True
    )
    assert not (tmp_path / "few").exists()
