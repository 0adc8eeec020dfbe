r"""The command line: runs by noise level are those of Python, and runs that stop go on to the same bits."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde as ss
from scoresde.cli import models

from .test_cli import answer, refusal, within
from .test_cli_words import said

DIGITS = ss.load("digits")
LEVELS = [80.0, 10.0, 3.0, 1.0, 0.3, 0.05]
WORDS = ",".join(map(str, LEVELS))
NORMAL = """
import torch
import scoresde as ss

model = ss.GaussianOracle(torch.zeros(2), 0.5)
"""
INTERRUPTED = """
import torch
import scoresde as ss


class Shrink(ss.ScoreModel):
    shape, calls = (2,), 0

    def __init__(self):
        super().__init__()
        self.process, self.data_scale = ss.EDM(), 1.0

    def denoise(self, x, t):
        type(self).calls += 1
        if type(self).calls == 4:
            raise KeyboardInterrupt
        return x / (1 + t.reshape(-1, 1) ** 2)


model = Shrink()
"""


def threes() -> torch.Tensor:
    return ss.sample(DIGITS, 2, steps=6, label=3, seed=5).x.float()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", threes().numpy())
    return tmp_path


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    r"""A folder of code; what it adds to the interpreter is taken away again."""

    (tmp_path / "normal.py").write_text(NORMAL)
    (tmp_path / "stops.py").write_text(INTERRUPTED)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(models, "OWN", set())
    yield tmp_path
    for name in ("normal", "stops"):
        sys.modules.pop(name, None)


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as found:
        return dict(found)


def test_encode_and_decode_by_level(folder: Path) -> None:
    x = torch.from_numpy(np.load(folder / "x.npy"))
    common = ("digits", "--label", 3)
    answer(
        "encode", *common, "--data", "x.npy", "--levels", WORDS, "--out", "z.npz", folder=folder
    )
    z = ss.encode(DIGITS, x, levels=LEVELS, label=3)
    assert np.array_equal(arrays(folder / "z.npz")["x"], z.x.numpy())
    ends = ("--sigma-min", 0.1, "--sigma-max", 20, "--steps", 4)
    found = answer("encode", *common, "--data", "x.npy", *ends, "--out", "low.npz", folder=folder)
    low = ss.encode(DIGITS, x, sigma_min=0.1, sigma_max=20.0, steps=4, label=3)
    assert np.array_equal(arrays(folder / "low.npz")["x"], low.x.numpy())
    assert "latents" not in found  # which hold data, so they are not compared with the prior
    for options, python in {
        ("--levels", f"{WORDS},0"): {"levels": [*LEVELS, 0.0]},
        ("--steps", 3, "--sigma-min", 0.1): {"steps": 3, "sigma_min": 0.1},
    }.items():
        answer("decode", *common, "--data", "z.npz", *options, "--out", "y.npy", folder=folder)
        right = ss.decode(DIGITS, z, label=3, **python).x  # type: ignore[arg-type]
        assert np.array_equal(np.load(folder / "y.npy"), right.numpy())


def test_edits_by_level(folder: Path) -> None:
    x = torch.from_numpy(np.load(folder / "x.npy"))
    answer("edit", "digits", "--data", "x.npy", "--source", 3, "--target", 8, "--noise-level", 2, "--steps", 3,
           "--sigma-min", 0.1, "--out", "e.npy", folder=folder)  # fmt: skip
    ends = (DIGITS.given(label=torch.tensor([label])) for label in (3, 8))
    e = ss.edit(*ends, x, noise_level=2.0, steps=3, sigma_min=0.1)
    assert np.array_equal(np.load(folder / "e.npy"), e.x.numpy())


def test_likelihoods_by_level(code: Path) -> None:
    model, x = ss.GaussianOracle(torch.zeros(2), 0.5), torch.tensor([[0.5, -1.0], [0.0, 0.5]])
    np.save(code / "x.npy", x.numpy())
    score = ("likelihood", "normal.py:model", "--data", "x.npy")
    times = torch.tensor(LEVELS, dtype=torch.float64).flip(0)  # of EDM
    for options, python in {
        ("--noise-levels", WORDS): {"times": times, "t_min": 0.05},
        ("--sigma-min", 0.1): {"t_min": 0.1},
    }.items():
        l = ss.log_likelihood(model, x, seed=0, **python)  # type: ignore[arg-type]
        found = answer(*score, *options, folder=code)
        assert found["nats"] == pytest.approx(float(l.nats.mean()), rel=1e-6)
        ends = {"levels": 5, "low": -1.0, "high": 1.0}
        l = ss.discrete_log_likelihood(model, x, seed=0, **ends, **python)  # type: ignore[arg-type]
        found = answer(*score, *options, "--levels", 5, folder=code)
        assert found["nats"] == pytest.approx(float(l.nats.mean()), rel=1e-6)


@pytest.mark.parametrize(("arguments", "words"), [
    (("encode", "digits", "--data", "x.npy", "--out", "z.npz", "--levels", "80,1,0"), "levels must be positive"),
    (("encode", "digits", "--data", "x.npy", "--out", "z.npz", "--levels", "80,one"), "--levels must be numbers"),
    (("likelihood", "digits", "--data", "x.npy", "--noise-levels", "80,1,0"), "--noise-levels must be positive"),
    (("likelihood", "digits", "--data", "x.npy", "--noise-levels", "1,80"), "--noise-levels must be noise levels"),
    (("likelihood", "digits", "--data", "x.npy", "--noise-levels", "10,1"), "--noise-levels must start at 80"),
    (("likelihood", "digits", "--data", "x.npy", "--noise-levels", "800,1"), "--noise-levels go from noise level"),
    (("likelihood", "digits", "--data", "x.npy", "--noise-levels", "8,1", "--sigma-min", 1), "has no effect with"),
    (("likelihood", "digits", "--data", "on.npy", "--levels", 17, "--sigma-min", 1), "more than that of uniform"),
    (("likelihood", "digits", "--data", "x.npy", "--t-min", 1, "--sigma-min", 1), "t_min= has no effect with"),
    (("sample", "digits", "--max-calls", 5), "--max-calls may stop the run, which only an npz file can keep"),
    (("sample", "digits", "--max-calls", 5, "--out", "x.png"), "--max-calls may stop the run"),
    (("sample", "digits", "--max-calls", 1, "--out", "s.npz"), "max_calls must be more than the 1 of the last"),
    (("resume", "digits", "none.npz"), "there is no file none.npz"),
    (("resume", "digits", "x.npy"), "a solution needs an npz file"),
    (("resume", "digits", "text.npz"), "text.npz holds no solution, or is damaged: it is not an archive"),
    (("resume", "digits", "data.npz"), "data.npz holds no solution, or is damaged: it lacks times"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(
    arguments: tuple[object, ...], words: str, folder: Path
) -> None:
    (folder / "text.npz").write_text("no archive")
    np.save(folder / "on.npy", np.zeros((2, 1, 8, 8)))
    np.savez(folder / "data.npz", x=np.zeros((2, 1, 8, 8)))
    assert words in refusal(*arguments, folder=folder)


@pytest.mark.parametrize(
    "options",
    [
        ("--solver", "dpmpp_2m", "--steps", 8),
        ("--solver", "ancestral", "--steps", 8, "--batch-size", 2),
        ("--rtol", 0.05, "--atol", 0.05),
    ],
    ids=["grid", "noise", "tolerances"],
)
def test_a_run_that_stops_goes_on_to_the_bits_of_the_whole(
    options: tuple[object, ...], tmp_path: Path
) -> None:
    model = ("digits", "--label", "3,1,4", "--guidance", 2)
    whole = answer("sample", *model, *options, "--out", "whole.npz", folder=tmp_path)
    short = ("--max-calls", 9, "--out", "part.npz")
    part = answer("sample", *model, *options, *short, folder=tmp_path)
    assert part["status"] == {"max_calls": 3}
    assert np.max(part["calls"]) <= 9
    again = answer("resume", *model, "part.npz", "--max-calls", 13, folder=tmp_path)
    assert np.max(part["calls"]) < np.max(again["calls"]) <= 13
    rest = answer("resume", *model, "part.npz", folder=tmp_path)
    assert rest["status"] is None
    assert rest["calls"] == whole["calls"]
    one, other = arrays(tmp_path / "whole.npz"), arrays(tmp_path / "part.npz")
    assert one.keys() == other.keys()
    for name in one.keys() - {"provenance"}:
        assert np.array_equal(one[name], other[name]), name
    made = [json.loads(str(found["provenance"])) for found in (one, other)]
    assert made[0] | {"versions": 0} == made[1] | {"versions": 0}
    assert "this run has reached its end" in refusal("resume", *model, "part.npz", folder=tmp_path)


def test_a_run_goes_on_with_its_own_model_and_conditions(tmp_path: Path) -> None:
    begun = ("sample", "digits", "-n", 2, "--label", 3, "--steps", 6, "--max-calls", 4)
    done = within(*begun, "--out", "part.npz", folder=tmp_path)
    assert done.exit_code == 0
    before = (tmp_path / "part.npz").read_bytes()
    for options, words in {
        (): "begun with label=, which is missing here",
        ("--label", 4): "the values of the conditions differ",
        ("--label", 3, "--guidance", 2): "the run was begun with the model",
        ("--label", 3, "--max-calls", 9, "--out", "x.npy"): "--max-calls may stop the run",
    }.items():
        assert words in refusal("resume", "digits", "part.npz", *options, folder=tmp_path)
    words = refusal("encode", "digits", "--data", "part.npz", "--out", "z.npz", folder=tmp_path)
    assert "part.npz holds a run that did not reach its end" in words
    assert (tmp_path / "part.npz").read_bytes() == before
    answer("resume", "digits", "part.npz", "--label", 3, "--out", "x.npy", folder=tmp_path)
    right = ss.sample(DIGITS, 2, steps=6, label=3, seed=0).x
    assert np.array_equal(np.load(tmp_path / "x.npy"), right.numpy())
    python = ss.resume(DIGITS, ss.load_solution(tmp_path / "part.npz"), label=3)
    assert torch.equal(python.x, right)


def test_a_run_that_the_user_stops_is_kept(
    code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"folder": code, "monkeypatch": monkeypatch, "capsys": capsys}
    begun = ("sample", "stops.py:model", "-n", 2, "--solver", "ddim", "--steps", 8)
    status, _, err = said(*begun, "--out", "part.npz", **common)  # type: ignore[arg-type]
    assert status == 130
    assert (
        "stopped: the run so far is in part.npz, and `scoresde resume stops.py:model part.npz`"
        in err
    )
    assert said("resume", "stops.py:model", "part.npz", **common)[0] == 0  # type: ignore[arg-type]
    assert said(*begun, "--out", "whole.npz", **common)[0] == 0  # type: ignore[arg-type]
    found, right = (arrays(code / name) for name in ("part.npz", "whole.npz"))
    assert np.array_equal(found["x"], right["x"])
    assert found["calls"].tolist() == right["calls"].tolist() == [9, 9]


def test_runs_in_files_are_solutions_of_python(tmp_path: Path) -> None:
    answer("sample", "digits", "-n", 2, "--steps", 4, "--out", "s.npz", folder=tmp_path)
    s = ss.load_solution(tmp_path / "s.npz")
    assert torch.equal(s.x, ss.sample(DIGITS, 2, steps=4, seed=0).x)
    assert s.ok


def test_options_in_the_description_of_a_process_keep_their_names() -> None:
    from scoresde.cli.words import spoken

    options = {"sigma_max": "--sigma-max", "t_min": "--t-min"}
    known = "EDM(Karras(sigma_min=0.002, sigma_max=80.0), t in [0.002, 80])"
    text = f"sigma_max must be a noise level of {known}; lower t_min=."
    assert spoken(text, options) == f"--sigma-max must be a noise level of {known}; lower --t-min."
