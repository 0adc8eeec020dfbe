r"""The command line: some commands in a process of their own, the others in this one."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from scoresde.cli.app import app
from scoresde.training.digits_data import digits

SCORESDE = [sys.executable, "-m", "scoresde"]


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*SCORESDE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def within(*arguments: object, folder: Path) -> Any:
    r"""What a command does in this process, which starts at once, in the dtype of a process of its own."""

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with contextlib.chdir(folder):
            return CliRunner().invoke(app, list(map(str, arguments)))
    finally:
        torch.set_default_dtype(before)


def answer(*arguments: object, folder: Path) -> dict:
    done = within(*arguments, "--json", folder=folder)
    assert done.exit_code == 0, done.exception or done.stderr
    return json.loads(done.stdout)


def refusal(*arguments: object, folder: Path) -> str:
    done = within(*arguments, folder=folder)
    assert isinstance(done.exception, (ValueError, TypeError, OSError)), done.exception
    return str(done.exception)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    test = digits("test")
    np.savez(tmp_path / "test.npz", x=test.images[:4].numpy(), label=test.labels[:4].numpy())
    return tmp_path


@pytest.mark.slow
def test_sample_writes_log_densities(tmp_path: Path) -> None:
    import scoresde as ss

    arguments = ["sample", "digits", "-n", 2, "--steps", 8, "--label", 3, "--log-density"]
    said = answer(*arguments, "--out", "x.npz", folder=tmp_path)
    torch.set_default_dtype(torch.float32)
    s = ss.sample(ss.load("digits"), 2, steps=8, seed=0, label=3, log_density=True)
    with np.load(tmp_path / "x.npz") as found:
        for name in ("log_density", "log_density_error"):
            right = getattr(s, name)
            assert np.allclose(found[name], right, rtol=1e-3, atol=1e-3)
            assert abs(said[name] - float(right.mean())) < 1e-2
    assert said["calls"] == s.calls[0]


def test_sample_writes_what_python_draws(tmp_path: Path) -> None:
    import scoresde as ss

    arguments = [
        "sample",
        "digits",
        "-n",
        3,
        "--solver",
        "ddim",
        "--steps",
        4,
        "--label",
        3,
        "--guidance",
        2,
    ]
    said = answer(*arguments, "--seed", 5, "--out", "x.npz", folder=tmp_path)
    assert said["calls"] == 10
    assert said["seed"] == 5
    torch.set_default_dtype(torch.float32)
    guided = ss.classifier_free(ss.load("digits"), 2.0, label=3)
    x = np.load(tmp_path / "x.npz")["x"]
    assert np.allclose(x, ss.sample(guided, 3, solver="ddim", steps=4, seed=5).x, atol=1e-5)
    done = run(*arguments, "--out", "x.png", folder=tmp_path)
    assert done.returncode == 0
    assert "100%" in done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


SCORE = [
    "likelihood",
    "digits",
    "--data",
    "test.npz",
    "--levels",
    17,
    "--probes",
    2,
    "--nodes",
    8,
    "--rtol",
    1e-2,
]


def test_likelihood_reports_bits(data: Path) -> None:
    said = answer(*SCORE, "--use-labels", "--out", "l.csv", folder=data)
    assert 1.2 < said["bits_per_dim"] < 2.4
    assert said["stderr"] > 0
    assert said["total"] > 2 * said["stderr"]
    lines = (data / "l.csv").read_text().splitlines()
    assert lines[0].startswith('# {"')
    parts = "quadrature,path,end,prior,dequantisation"
    assert lines[1] == f"index,nats,stderr,total,calls,products,{parts},bits_per_dim"
    assert "dequantisation is the largest part of the error" in said["advice"]  # of a single draw
    assert [line.split(",")[0] for line in lines[2:]] == ["0", "1", "2", "3"]


def test_a_table_of_likelihoods_goes_on_where_it_was_cut_off(data: Path) -> None:
    whole = answer(*SCORE, "--batch-size", 3, "--out", "l.csv", folder=data)
    text = (data / "l.csv").read_text()
    lines = text.splitlines(keepends=True)
    (data / "l.csv").write_text("".join(lines[:4]) + lines[4][:9])  # two rows, and part of one
    again = answer(*SCORE, "--batch-size", 3, "--out", "l.csv", folder=data)
    assert again["samples"] == 4
    assert again["bits_per_dim"] == pytest.approx(whole["bits_per_dim"], abs=1e-4)
    assert (data / "l.csv").read_text().splitlines()[:4] == text.splitlines()[:4]
    assert len((data / "l.csv").read_text().splitlines()) == 6
    said = refusal(*SCORE, "--seed", 3, "--out", "l.csv", folder=data)
    assert "holds another table, with seed=0, not 3; pass" in said
    (data / "l.csv").write_text("".join(lines[:3] + lines[4:]))
    said = refusal(*SCORE, "--out", "l.csv", folder=data)
    assert "is damaged in line 4, which should hold the numbers of sample 1" in said
    (data / "l.csv").write_text(text + lines[-1].replace("3,", "4,", 1))
    said = refusal(*SCORE, "--out", "l.csv", folder=data)
    assert "has 5 rows, but there are only 4 samples" in said
    assert "must end in .csv" in refusal(*SCORE, "--out", "l.npz", folder=data)


def test_all_data_is_checked_before_any_is_scored(data: Path) -> None:
    x, label = (np.load(data / "test.npz")[name] for name in ("x", "label"))
    np.savez(data / "nan.npz", x=np.concatenate([x[:3], np.nan * x[3:]]), label=label)
    np.savez(data / "short.npz", x=x, label=label[:2])
    np.savez(data / "bytes.npz", x=(x * 127).astype(np.uint8))
    np.savez(data / "empty.npz", x=x[:0])
    np.savez(data / "words.npz", x=np.array(["a", "b"]))
    (data / "text.png").write_text("no picture")
    score = ["likelihood", "digits", "--probes", 1, "--data"]
    for arguments, words in {
        ("nan.npz", "--levels", 17): "among samples 0 to 3: x must be finite",
        ("short.npz", "--use-labels"): "there are 2 labels for 4 samples",
        ("bytes.npz",): "it holds torch.uint8: pass --levels",
        ("bytes.npz", "--levels", 17): "levels from 0 to 16, but reaches from",
        ("empty.npz",): "the data has no samples",
        ("words.npz",): "the entry 'x' of words.npz must hold numbers",
        ("text.png",): "text.png is not a png picture",
        ("test.npz", "--low", 0): "--low is for data on levels: pass --levels",
        ("test.npz", "--levels", 17, "--dequantization", "none"): "exactly on its levels",
        (
            "test.npz",
            "--levels",
            17,
            "--dequantization",
            "none",
            "--draws",
            2,
        ): "--draws has no effect",
        ("test.npz", "--levels", 17, "--t-min", 0.5): "lower t_min",
        ("test.npz", "--use-labels", "--label", 3): "--label and --use-labels are both labels",
    }.items():
        assert words in refusal(*score, *arguments, folder=data)


@pytest.mark.slow
def test_likelihoods_of_arrays_that_stay_on_the_disk(data: Path) -> None:
    np.save(data / "test.npy", np.load(data / "test.npz")["x"][:2])
    arguments = ["likelihood", "digits", "--data", "test.npy", "--levels", 17, "--label", 3]
    said = answer(*arguments, "--probes", 1, "--nodes", 8, "--dequantization", "truncated_normal", "--draws", 2,
                  "--guidance", 1.5, folder=data)  # fmt: skip
    assert said["samples"] == 2


def test_encode_then_decode_is_a_round_trip(data: Path) -> None:
    coarse = ["--rtol", 1e-3, "--atol", 1e-3, "--label", 3]
    answer("encode", "digits", "--data", "test.npz", "--out", "z.npz", *coarse, folder=data)
    answer(
        "decode",
        "digits",
        "--data",
        "z.npz",
        "--out",
        "y.npy",
        "--label",
        3,
        "--no-denoise",
        folder=data,
    )
    assert np.abs(np.load(data / "y.npy") - np.load(data / "test.npz")["x"]).max() < 2e-2
    said = refusal("decode", "digits", "--data", "test.npz", folder=data)
    assert "holds no latents" in said


def test_edit_reads_and_writes_pictures(data: Path) -> None:
    answer(
        "sample", "digits", "-n", 4, "--steps", 4, "--label", 3, "--out", "three.png", folder=data
    )
    said = answer("edit", "digits", "--data", "three.png", "--source", 3, "--target", 8, "--noise-level", 1.0,
                  "--solver", "heun", "--steps", 4, "--out", "eight.png", folder=data)  # fmt: skip
    assert said["samples"] == 4
    assert said["rms change"] > 0.05


def test_edits_by_name_with_a_mask_and_an_animation(data: Path) -> None:
    answer("sample", "digits", "-n", 2, "--steps", 4, "--label", 3, "--out", "x.npz", folder=data)
    common = [
        "edit",
        "digits",
        "--data",
        "x.npz",
        "--target",
        8,
        "--noise-level",
        1.0,
        "--steps",
        4,
    ]
    flow = [*common, "--source", 3, "--method", "flow", "--averages", 2, "--animate", "e.gif"]
    assert answer(*flow, folder=data)["animation"] == "e.gif"
    assert (data / "e.gif").read_bytes()[:3] == b"GIF"
    known = torch.zeros(1, 8, 8)
    known[:, :4] = 1
    np.save(data / "known.npy", known.numpy())
    answer(*common, "--method", "inpaint", "--known", "known.npy", "--way", "gradient", "--out", "y.npz",
           folder=data)  # fmt: skip
    x, y = (np.load(data / f"{name}.npz")["x"] for name in "xy")
    assert np.array_equal(x[..., :4, :], y[..., :4, :])
    assert not np.array_equal(x, y)
    np.save(data / "strengths.npy", 0.6 * (1 - known.numpy()))
    strong = [*common[:-4], "--steps", 4, "--source", 3, "--strengths", "strengths.npy"]
    said = answer(*strong, "--method", "noise", "--solver", "ancestral", "--plot", "p.png", "--out", "w.npz",
                  folder=data)  # fmt: skip
    w = np.load(data / "w.npz")
    assert np.array_equal(x[..., :4, :], w["x"][..., :4, :])
    assert json.loads(str(w["provenance"]))["origin"]["solver"]
    assert (data / said["plot"]).read_bytes()[:4] == b"\x89PNG"
    null = [*common, "--source", 3, "--method", "null", "--guidance", 2]
    assert answer(*null, folder=data)["rms change"] > 0.01


def test_guidance_by_name(tmp_path: Path) -> None:
    import scoresde as ss
    from scoresde.cli.guidances import guided

    model, x, t = ss.load("digits"), torch.randn(2, 1, 8, 8), torch.tensor(1.0)
    label = torch.tensor([3, 8])
    pairs = {
        "2": ss.classifier_free(model, 2.0, label=label),
        "classifier_free:scale=2:low=0.5:high=3": ss.classifier_free(
            model, 2.0, interval=(0.5, 3.0), label=label
        ),
        "projected:scale=4:norm=2": ss.guidance.adaptive_projected(
            model.given(label=label), model, 4.0, norm=2.0
        ),
        "classifier_free:scale=2:negative=1": ss.classifier_free(
            model, 2.0, label=label, negative={"label": torch.tensor([1])}
        ),
        "zero_star:scale=2": ss.guidance.zero_star(model.given(label=label), model, 2.0),
    }
    for words, want in pairs.items():
        assert torch.allclose(
            guided(model, {"label": label}, words).denoise(x, t), want.denoise(x, t)
        )
    for words in ("rescaled:scale=3:share=0.5", "thresholded:scale=3:quantile=0.9"):
        assert guided(model, {"label": label}, words).denoise(x, t).shape == x.shape
    sample = ["sample", "digits", "-n", 1, "--steps", 2, "--label", 3, "--guidance"]
    for words, said in {
        "magic": "--guidance must be a number or one of classifier_free",
        "projected": "needs a scale, as in 'projected:scale=3'",
        "classifier_free:scale=2:negative=1.5": "needs a whole number for negative",
        "classifier_free:scale=2:negative=12": "label must lie in [0, 9]",
        "zero_star:scale=2:norm=1": "has no 'norm'; it takes scale",
        "projected:scale=big": "needs key=number after each ':', not 'scale=big'",
        "projected:scale": "needs key=number after each ':', not 'scale'",
        "projected:scale=3:scale=5": "sets 'scale' twice; set it once",
    }.items():
        assert said in refusal(*sample, words, folder=tmp_path)
    assert answer(*sample, "projected:scale=3", folder=tmp_path)["calls"] == 6


def test_guidance_by_the_embedded_classifiers(tmp_path: Path) -> None:
    import scoresde as ss
    from scoresde.cli.guidances import guided

    model, label = ss.load("digits"), torch.tensor([3, 8])
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(2.0)
    noisy = ss.load_classifier("digits_noisy")
    want = ss.guidance.classifier(model, noisy.log_prob, 2.0, label=label).denoise(x, t)
    assert torch.allclose(
        guided(model, {"label": label}, "classifier:scale=2").denoise(x, t), want
    )
    clean = ss.guidance.universal(model, ss.load_classifier("digits").loss, 2.0, label=label)
    found = guided(model, {"label": label}, "universal:scale=2:high=5")
    assert torch.allclose(found.denoise(x, t), clean.denoise(x, t))
    far = torch.tensor(6.0)
    assert torch.allclose(found.denoise(x, far), model.denoise(x, far))
    found = guided(model, {"label": label}, "feedback:share=0.6:limit=3")
    assert list(found.parts) == ["conditional", "unconditional"]
    other = ss.NetworkScore(model.network, model.process, "edm", conditions=["label"])
    with pytest.raises(ValueError, match="no embedded classifier of this model"):
        guided(other, {"label": label}, "classifier:scale=2")
    sample = ["sample", "digits", "-n", 1, "--steps", 2, "--label", 3, "--guidance", "feedback"]
    assert "needs a share" in refusal(*sample, folder=tmp_path)


def test_what_goes_on_is_drawn(tmp_path: Path) -> None:
    guided = ["--label", 3, "--guidance", 3, "--steps", 5]
    drawn = answer(
        "plot",
        "geometry",
        "digits",
        *guided,
        "--step",
        2,
        "--solver",
        "ancestral",
        folder=tmp_path,
    )
    assert drawn["claims"][-1]["64 dimensions"] == 2 / 64
    answer("plot", "geometry", "digits", *guided, "--out", "way.html", folder=tmp_path)
    films = ["--out", "t.png", "--film", "f.png", "-n", 2]
    rows = answer("plot", "trajectory", "digits", *guided, *films, folder=tmp_path)["rows"]
    assert len(rows) == 6
    assert rows[0]["cos(push, last)"] is None
    hinges = answer(
        "plot", "spectrum", "digits", "--levels", "0.01,1", "-n", 4, "--steps", 3, folder=tmp_path
    )
    assert hinges["hinge at noise level 0.01, cycles per pixel"] is None
    assert 0.1 < hinges["hinge at noise level 1, cycles per pixel"] < 0.4
    written = {"geometry.png", "way.html", "t.png", "f.png", "spectrum.png"}
    assert {file.name for file in tmp_path.iterdir()} == written
    assert "--levels must be numbers" in refusal(
        "plot", "spectrum", "digits", "--levels", "a", folder=tmp_path
    )
    for name in ("geometry", "trajectory", "spectrum"):
        assert "must end in one of .png" in refusal(
            "plot", name, "digits", "--out", "a.jpg", folder=tmp_path
        )
    assert "-n must be at least 2" in refusal(
        "plot", "spectrum", "digits", "-n", 1, folder=tmp_path
    )
    assert "-n must be at least 1" in refusal(
        "plot", "trajectory", "digits", "-n", 0, folder=tmp_path
    )
    assert "step must lie in" in refusal(
        "plot", "geometry", "digits", "--step", 50, folder=tmp_path
    )


def test_latents_of_a_lattice_come_back_from_a_file(data: Path) -> None:
    import scoresde as ss

    answer("encode", "digits", "--data", "test.npz", "--out", "l.npz", "--solver", "lattice_heun", "--steps", 6,
           folder=data)  # fmt: skip
    answer("decode", "digits", "--data", "l.npz", "--no-denoise", "--out", "back.npy", folder=data)
    x, back = (
        torch.from_numpy(np.load(data / "test.npz")["x"]),
        torch.from_numpy(np.load(data / "back.npy")),
    )
    assert torch.equal(ss.quantize(back.double(), levels=17), x.double())


def test_solvers_and_info(tmp_path: Path) -> None:
    listed = answer("solvers", folder=tmp_path)
    assert {"name", "order", "stochastic", "adaptive", "calls per step"} <= set(
        listed["solvers"][0]
    )
    assert "torchsde/adjoint_reversible_heun" in listed["refused"]
    assert answer("info", "digits", folder=tmp_path)["predicts"] == "edm"
    assert "torchdiffeq/dopri5" in run("solvers", folder=tmp_path).stdout


def test_check_says_what_is_wrong_and_exits_with_one(data: Path) -> None:
    held_out = digits("test").images[:8].numpy()
    np.save(data / "right.npy", held_out)
    np.save(data / "wrong.npy", (held_out + 1) / 2)
    arguments = ["check", "digits", "--label", ",".join(["3"] * 8), "--batch-size", 8]
    said = answer("check", "digits", "--data", "right.npy", "--plot", "check.png", folder=data)
    assert said["ok"]
    assert not said["findings"]
    assert (data / "check.png").exists()
    done = within(*arguments, "--data", "wrong.npy", "--json", folder=data)
    assert done.exit_code == 1
    assert "2 * data - 1" in json.loads(done.stdout)["findings"][0]


def test_compare_tune_and_sample_by_the_plan(data: Path) -> None:
    import scoresde as ss

    small = ["-n", 4, "--label", 3, "--reference-tolerance", 0.1]
    arguments = ["compare", "digits", *small, "--solvers", "ddim,exponential", "--budgets", "3,4"]
    arguments += ["--tolerances", "0.1", "--data", "test.npz"]
    files = ["--out", "c.json", "--html", "r.html", "--plot", "p.png"]
    said = answer(*arguments, *files, folder=data)
    assert [row["calls"] for row in said["rows"]][:2] == [3, 4]
    assert "energy" in said["floors"]
    page = (data / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # error, energy, samples
    assert 'src="http' not in page
    assert (data / "p.png").stat().st_size > 5000
    c = ss.Comparison.load(data / "c.json")
    assert len(c.rows) == 3
    table = within(*arguments, "--out", "c.json", folder=data).stdout
    assert "exponential" in table
    assert "errors against the flow" in table
    made = ["tune", "digits", *small, "--held-out", 4, "--solvers", "ddim", "--grids", "rho"]
    best = answer(*made, "--budget", 3, "--out", "plan.json", folder=data)
    assert best["error"]["mean"] <= best["best before"][0]["error"]["mean"] * 1.2
    drawn = answer("sample", "digits", "-n", 2, "--label", 3, "--plan", "plan.json", folder=data)
    assert drawn["calls"] == 3
    assert drawn["solver"] == "ddim"
    several = [*made, "--scales", "1,3", "--budget", 4]
    one = answer(*several, "--out", "one.json", folder=data)
    assert {name: row["calls"] for name, row in one["by model"].items()} == {"1": 2, "3": 4}
    suggested = answer("suggest", "digits", "--budget", 6, folder=data)["suggestions"]
    assert all(entry["calls"] <= 6 for entry in suggested)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "digitz"], "there is no model 'digitz'"),
        (["sample", "digits", "--solver", "dpm2m"], "did you mean"),
        (["sample", "digits", "--steps", "0"], "steps must be at least 1, but is 0"),
        (["sample", "digits", "--guidance", "2"], "--guidance needs a condition: pass --label"),
        (["sample", "digits", "--label", "11"], "label must lie in [0, 9], but one is 11"),
        (["sample", "digits", "--out", "x.jpg"], "must end in one of .npz, .npy, .png"),
        (["encode", "digits", "--data", "no.npz", "--out", "z.npz"], "there is no file no.npz"),
        (["likelihood", "digits", "--data", "bad.npz"], "is not an array file, or is damaged"),
        (["compare", "digits", "--budgets", "a"], "--budgets must be numbers separated by commas"),
        (["compare", "digits", "--solvers", "dim"], "solver 'dim' is unknown"),
        (["sample", "digits", "--plan", "bad.npz"], "is not a plan"),
        (["train", "cats"], "nor one of the recipes digits, digits_classifier, patches"),
        (
            ["edit", "digits", "--data", "bad.npz", "--noise-level", "1"],
            "neither --source nor --target is given",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_errors_are_one_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    said = refusal(*arguments, folder=tmp_path)
    assert message in said
    assert said.count("\n") == 0


@pytest.mark.parametrize("arguments", [["sample", "digitz"], ["sample", "digits", "--steps", "0"]])
def test_errors_are_shown_without_a_traceback(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("sample", "digits", "--steps", "0", "--debug", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
