r"""The command line with what users own: their code, files that name it, and data in their form."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde as ss
from scoresde.cli import models
from scoresde.cli.words import spoken

from .test_cli import answer, refusal, run

CODE = """
import torch
import scoresde as ss
from beside import half


class Network(torch.nn.Module):
    def forward(self, x, t):
        return half(x)


class Shrink(ss.ScoreModel):
    shape = (2,)

    def __init__(self, std=1.0):
        super().__init__()
        self.process, self.settings, self.std, self.data_scale = ss.EDM(), {"std": std}, std, std

    def denoise(self, x, t):
        return x * self.std**2 / (self.std**2 + t.reshape(-1, 1) ** 2)


network = Network()
model = ss.NetworkScore(network, ss.VP(), "noise", shape=(2,), data_scale=1.0)
wide = Shrink(3.0)
number = 3
failing = ss.NetworkScore(lambda x, t: x.nothing(), ss.VP(), "noise", shape=(2,), data_scale=1.0)


def make():
    return model


def breaks():
    return undefined


def needs(width):
    return model
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    r"""A folder of code; what it adds to the interpreter is taken away again."""

    (tmp_path / "own_things.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("def half(x):\n    return 0.5 * x\n")
    (tmp_path / "bad_division.py").write_text("import torch\n\nx = 1 / 0\n")
    (tmp_path / "bad_words.py").write_text("def (\n")
    (tmp_path / "bad_end.py").write_text("import sys\n\nsys.exit(3)\n")
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "__init__.py").touch()
    (tmp_path / "within" / "inner.py").write_text("from own_things import make, wide\n")
    (tmp_path / "within" / "gone.py").write_text("from . import missing\n")
    (tmp_path / "within" / "json.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(models, "OWN", set())
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_own_code_is_a_model(code: Path) -> None:
    small = ["-n", 3, "--steps", 4]
    found = [
        answer("sample", name, *small, folder=code)
        for name in ("own_things.py:model", "own_things:make", "within.inner:make")
    ]
    assert len({(one["mean"], one["std"]) for one in found}) == 1
    std = [answer("sample", f"own_things.py:{name}", "-n", 2000, "--steps", 20, folder=code)["std"]
           for name in ("wide", "Shrink")]  # fmt: skip
    assert std == pytest.approx([3.0, 1.0], rel=0.03)
    np.savez(code / "x.npz", x=np.zeros((2, 2), np.float32))
    scored = ["likelihood", "own_things:wide", "--data", "x.npz", "--out", "nats.csv"]
    answer(*scored, "--rtol", 1e-5, "--atol", 1e-5, folder=code)
    table = np.genfromtxt(code / "nats.csv", delimiter=",", names=True, skip_header=1)
    assert table["nats"] == pytest.approx([-np.log(2 * np.pi * 9)] * 2, abs=5e-3)  # N(0 | 0, 9)
    z = answer("encode", "within.inner:wide", "--data", "x.npz", "--out", "z.npz", folder=code)
    assert z["samples"] == 2
    plans = answer(
        "compare", "own_things.py:wide", "--solvers", "ddim", "--budgets", 4, "-n", 8, folder=code
    )
    assert plans["rows"]


WRAPPED = """
import scoresde as ss
from own_things import wide


class Louder(ss.ScoreModel):
    def __init__(self, scale):
        super().__init__()
        self.resemble(wide)
        self.model, self.scale = wide, scale

    def denoise(self, x, t):
        return self.scale * self.model.denoise(x, t)


one, other = Louder(1.0), Louder(1.1)
"""


def test_a_table_is_of_one_model_with_all_that_is_in_it(code: Path) -> None:
    (code / "wrapped.py").write_text(WRAPPED)
    np.savez(code / "x.npz", x=np.zeros((2, 2), np.float32))
    rest = ["--data", "x.npz", "--solver", "heun", "--steps", 4, "--out", "t.csv"]
    found = answer("likelihood", "wrapped:one", *rest, folder=code)
    assert answer("likelihood", "wrapped:one", *rest, folder=code)["nats"] == found["nats"]
    said = refusal("likelihood", "wrapped:other", *rest, folder=code)
    assert "t.csv holds another table, of a model of the same name with other settings" in said
    head, *lines = (code / "t.csv").read_text().splitlines(keepends=True)
    told = {n: v for n, v in json.loads(head.removeprefix("# ")).items() if n != "identity"}
    (code / "t.csv").write_text("# " + json.dumps(told, sort_keys=True) + "\n" + "".join(lines))
    said = refusal("likelihood", "wrapped:one", *rest, folder=code)
    assert "t.csv is of an earlier version, which kept no more of a model than its name" in said


@pytest.mark.parametrize(("name", "words"), [
    ("own_things.py:modl", "it has: Network, Shrink, network, model, wide, failing, make, breaks, needs."),
    ("own_things.py", "name the model in it, too, as in own_things.py:model"),
    ("own_things.py:network", "is a network, a Network, and no score model; wrap it there"),
    ("own_things.py:number", "must be a score model, or a function without arguments"),
    ("own_things.py:needs", "must take no arguments, or have defaults for all of them"),
    ("own_things.py:breaks", "own_things.py, line 35: NameError: name 'undefined' is not defined"),
    ("bad_division.py:x", "bad_division.py, line 3: ZeroDivisionError"),
    ("bad_words:x", "bad_words.py, line 1: SyntaxError"),
    ("bad_end.py:x", "bad_end.py, line 3: it ends the program when it is imported"),
    ("within.gone:x", "gone.py, line 1: ImportError"),
    ("within/json.py:x", "json.py has the name of another module"),
    ("nothing.py:x", "there is no file"),
    ("nothing.at_all:x", "there is no module 'nothing' to import"),
])  # fmt: skip
def test_what_is_wrong_with_own_code_is_said(name: str, words: str, code: Path) -> None:
    said = refusal("sample", name, folder=code)
    assert words in said
    assert "\n" not in said


def test_errors_of_own_code_in_a_run_have_no_traceback(code: Path) -> None:
    done = run("sample", "own_things.py:failing", "-n", "2", "--steps", "3", folder=code)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "own_things.py, line 27: AttributeError: 'Tensor' object" in done.stderr.replace(
        "\n", " "
    )


def test_code_that_a_file_names_needs_trust(code: Path) -> None:
    sys.path.insert(0, str(code))
    from own_things import Shrink  # type: ignore[import-not-found]

    ss.save(Shrink(2.0), code / "kept")
    small = ["sample", "kept", "-n", 2, "--steps", 3]
    said = spoken(refusal(*small, folder=code), {})
    assert "Shrink', which is not of this package: pass --trust, which imports and runs it" in said
    assert answer(*small, "--trust", folder=code)["samples"] == 2


def test_the_dtype_of_the_weights(tmp_path: Path) -> None:
    model = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64) + 1 / 3, 0.5)
    ss.save(model, tmp_path / "kept")
    made = {}
    for dtype in ("float64", "float32", "bfloat16"):
        made[dtype] = answer("info", "kept", "--dtype", dtype, folder=tmp_path)["fingerprint"]
    plain = answer("info", "kept", folder=tmp_path)["fingerprint"]
    assert made["float64"] == plain
    assert made["float32"] == f"{plain} in float32"
    assert made["bfloat16"] == f"{plain} in bfloat16"
    assert "--dtype must be one of float64" in refusal(
        "info", "kept", "--dtype", "int8", folder=tmp_path
    )


# ---- data in the user's form

PARTS = ss.NamedParts({"place": (2,), "turn": (1, 2)})
FORMS: dict[str, tuple[int, ss.Transform]] = {
    "standardized": (4, ss.Standardized(torch.tensor([10.0, -4.0, 0.0, 1.0]), 2.0)),
    "complex": (4, ss.Standardized(torch.tensor([3 + 1j, 2j]), 0.3, ss.ComplexPairs())),
    "parts": (4, ss.Standardized({"place": [1.0, 2.0], "turn": [[3.0, 4.0]]}, 2.0, PARTS)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_data_in_the_users_form(form: str, tmp_path: Path) -> None:
    size, transform = FORMS[form]
    model = ss.GaussianOracle(torch.zeros(size), 1.0, ss.VP())
    model.transform = transform
    ss.save(model, tmp_path / "m")
    made = answer("sample", "m", "-n", 5, "--steps", 4, "--out", "s.npz", folder=tmp_path)
    wanted = ss.sample(model, 5, steps=4, dtype=torch.float32)
    kept = np.load(tmp_path / "s.npz")
    assert np.allclose(kept["x"], wanted.x.numpy(), rtol=1e-5, atol=1e-6)
    mean = np.atleast_1d(made["mean"]) @ [1, 1j][: np.size(made["mean"])]
    assert mean == pytest.approx(complex(wanted.x.mean()), rel=1e-4)
    data = "s.npz"
    if form == "parts":
        assert np.array_equal(kept["turn"], wanted["turn"].numpy().astype(np.float32))
        np.savez(tmp_path / "named.npz", place=kept["place"], turn=kept["turn"])
        data = "named.npz"
    precise = ["--rtol", 1e-5, "--atol", 1e-5]
    answer("likelihood", "m", "--data", data, *precise, "--out", "nats.csv", folder=tmp_path)
    table = np.genfromtxt(tmp_path / "nats.csv", delimiter=",", names=True, skip_header=1)
    z = transform.inside("x", wanted.x).double()  # of standard normal states
    nats = (
        torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        - transform.log_volumes((size,)).sum()
    )
    assert np.allclose(table["nats"], nats.numpy(), atol=2e-2)
    answer("encode", "m", "--data", data, "--out", "z.npz", *precise, folder=tmp_path)
    answer("decode", "m", "--data", "z.npz", "--no-denoise", "--out", "back.npz", folder=tmp_path)
    assert np.allclose(np.load(tmp_path / "back.npz")["x"], kept["x"], atol=2e-3)
    assert "use npz or npy" in refusal("sample", "m", "--out", "s.png", folder=tmp_path)
    assert "leave out --levels" in refusal(
        "likelihood", "m", "--data", data, "--levels", 4, folder=tmp_path
    )


def test_data_of_another_form_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.ones((2, 1, 8, 8)) * 1j)
    encode = ["encode", "--out", "z.npz", "--data"]
    said = refusal(*encode, "c.npz", "digits", folder=tmp_path)
    assert "complex data needs a model with model.transform = ss.ComplexPairs()" in said
    model = ss.GaussianOracle(torch.zeros(4), 1.0)
    model.transform = PARTS
    ss.save(model, tmp_path / "m")
    np.savez(tmp_path / "p.npz", place=np.ones((2, 2)))
    assert "nor all of place, turn, but: place" in refusal(*encode, "p.npz", "m", folder=tmp_path)
    np.savez(tmp_path / "p.npz", place=np.ones((2, 2)), turn=np.ones((2, 2)))
    assert "p.npz['turn'] must have shape (2, 1, 2)" in refusal(
        *encode, "p.npz", "m", folder=tmp_path
    )
