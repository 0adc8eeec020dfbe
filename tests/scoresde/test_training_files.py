r"""A training in a folder resumes bit for bit, loads, and says what is known of the model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import scoresde as ss
from scoresde.training.run import CHECKPOINT

LABEL = torch.arange(100) % 2
X = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
X += LABEL[:, None]


class Small(nn.Module):
    r"""A small network with dropout, of two labels and none."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.classes = 2
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)
        self.label, self.drop = nn.Embedding(3, width), nn.Dropout(0.2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        none = torch.full(x.shape[:1], 2, device=x.device)
        h = self.first(torch.cat([x, t[:, None]], 1)) + self.label(
            none if label is None else label
        )
        return self.last(self.drop(torch.tanh(h)))


ss.register_network(Small)
OPTIONS: dict[str, Any] = {
    "steps": 24,
    "every": 4,
    "batch_size": 16,
    "settings": {},
    "assessed": False,
}


def small() -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().float()


def trained(out: Path | None, **options: Any) -> ss.training.Trained:
    data = {"x": X, "label": LABEL}
    return ss.train(small(), data, out=out, **{**OPTIONS, **options})


def killed(out: Path, at: int) -> None:
    r"""Begins the training in a process that is killed in a step."""

    code = f"""
        import os, signal, torch
        torch.set_default_dtype(torch.float64)
        from pathlib import Path
        from scoresde.training import objective
        from tests.scoresde import test_training_files as here

        plain, calls = objective.LOSSES["denoising"], []

        def deadly(model, *arguments, **condition):
            calls.append(model.network.training)
            if sum(calls) == {at}:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(model, *arguments, **condition)

        deadly.__module__, deadly.__qualname__ = plain.__module__, plain.__qualname__
        objective.LOSSES["denoising"] = deadly
        here.trained(Path({str(out)!r}))
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ}, check=False)
    assert run.returncode == -signal.SIGKILL


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    killed(tmp_path / "part", at=15)
    assert not (tmp_path / "part" / "model.json").exists()
    part = trained(tmp_path / "part")
    assert list(part.history) == list(whole.history)
    for name in ("model.safetensors", CHECKPOINT, "snapshots/00000024.safetensors"):
        one, other = (load_file(tmp_path / place / name) for place in ("whole", "part"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert (tmp_path / "part" / "history.jsonl").read_bytes() == (
        tmp_path / "whole" / "history.jsonl"
    ).read_bytes()
    assert (tmp_path / "part" / "model.json").read_text() == (
        tmp_path / "whole" / "model.json"
    ).read_text()
    again = trained(tmp_path / "part")  # which has ended
    assert list(again.history) == list(whole.history)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished") / "run"
    trained(place, assessed=True)
    return place


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.1}, "holds a training with lr=0.002, which cannot go on with lr=0.1"),
        ({"steps": 30}, "holds a training with steps=24, which cannot go on with steps=30"),
        ({"seed": 1}, "with seed=0, which cannot go on with seed=1"),
        ({"dropped": 0.5}, "with dropped=0.1, which cannot go on with dropped=0.5"),
        ({"coupling": "ot"}, "with coupling=independent, which"),
        ({"precision": "bfloat16"}, "with precision=float32, which"),
        ({"validation": 0.2}, "on other data|with other held-out data"),
        ({"process": ss.VP(), "predicts": "noise"}, "with process=EDM"),
    ],
)
def test_other_options_are_refused_by_name(
    finished: Path, options: dict[str, Any], words: str
) -> None:
    before = (finished / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match=words):
        trained(finished, **options)
    assert (finished / CHECKPOINT).read_bytes() == before


def test_the_folder_is_the_model(finished: Path) -> None:
    model, made = ss.load(finished), trained(finished)
    assert all(
        torch.equal(one, other)
        for one, other in zip(model.parameters(), made.model.parameters(), strict=True)
    )
    card = json.loads((finished / "model.json").read_text())
    assert card["network"] == {"name": "tests.scoresde.test_training_files:Small", "settings": {}}
    assert card["training"]["steps taken"] == 24
    assert card["data"]["classes"] == 2
    assert "log-likelihood in nats, conditions dropped" in card["metrics"]
    assert {"ok", "findings"} <= set(card["check"])
    assert (model.conditions, model.shape) == (("label",), (2,))
    assert ss.sample(model, 3, steps=3, label=1).x.isfinite().all()
    assert model.moments is not None


def test_measurements_of_the_card_are_those_of_the_verbs(tmp_path: Path) -> None:
    held, theirs = X[:20].float() + 0.1, LABEL[:20]
    found = trained(None, validation={"x": held, "label": theirs}, assessed=True)
    nats = ss.log_likelihood(found.model, held, label=theirs).nats
    none = ss.log_likelihood(found.model, held, label=2).nats
    metrics = found.card["metrics"]
    assert metrics["log-likelihood in nats"] == pytest.approx(float(nats.mean()), abs=1e-5)
    error = float(nats.std()) / 20**0.5
    assert metrics["log-likelihood in nats, standard error"] == pytest.approx(error, abs=1e-5)
    without = metrics["log-likelihood in nats, conditions dropped"]
    assert without == pytest.approx(float(none.mean()), abs=1e-5)
    check = ss.check_score(found.model, held, label=theirs)
    assert found.check is not None
    assert found.card["check"]["findings"] == list(check.findings)


def test_another_width_is_near_the_average_that_is_tracked(tmp_path: Path) -> None:
    options = {"steps": 200, "every": 100, "snapshots": 20, "lr": 0.02}
    trained(tmp_path / "a", ema=0.1, **options)
    direct = trained(tmp_path / "b", ema=0.2, **options).model
    found, plain = ss.training.reconstruct(tmp_path / "a", 0.2), ss.load(tmp_path / "a")

    def distance(one: Any, other: Any) -> float:
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5

    assert distance(found, direct) < 0.02 * distance(plain, direct)
    same = ss.training.reconstruct(tmp_path / "a", 0.1)
    assert distance(same, plain) < 1e-4 * distance(plain, direct)
    with pytest.raises(ValueError, match="width must be the width of an average"):
        ss.training.reconstruct(tmp_path / "a", 0.3)
    with pytest.raises(FileNotFoundError, match="holds no averages of a training"):
        ss.training.reconstruct(tmp_path, 0.2)


def test_a_failure_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    calls: list[int] = []

    def bad(model: Any, x: Tensor, log_snr: Tensor, z: Tensor, **condition: Tensor) -> Tensor:
        calls.append(int(model.network.training))
        broken = float("inf") if sum(calls) > 13 else 1.0
        return broken * model.denoise(x, torch.ones(len(x)), **condition).square().mean(1)

    words = r"the loss is inf at step 14, with .* keeps the checkpoint of step 12"
    with pytest.raises(ss.training.TrainingError, match=words):
        trained(tmp_path / "run", loss=bad)
    tensors = load_file(tmp_path / "run" / CHECKPOINT)
    assert all(value.isfinite().all() for value in tensors.values())


def test_what_a_file_of_the_network_needs_is_said_first(tmp_path: Path) -> None:
    class Local(Small):
        pass

    options: dict[str, Any] = {**OPTIONS, "validation": 0}
    with pytest.raises(ValueError, match="Small can be saved with the settings that make it"):
        ss.train(small(), X, out=tmp_path / "a", **{**options, "settings": None})
    with pytest.raises(ValueError, match="constructor must be a class"):
        ss.train(Local(), X, out=tmp_path / "a", **options)
    with pytest.raises(ValueError, match="could not be loaded again"):
        ss.train(small(), X, out=tmp_path / "a", **{**options, "settings": {"width": 9}})
    with pytest.warns(UserWarning, match=r"ss.load\(folder, trust=True\), or after ss.register"):
        ss.train(Other().float(), X, out=tmp_path / "b", **options)
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out must be a folder, but .* is a file"):
        trained(tmp_path / "file")


class Other(Small):
    r"""A network that is not registered."""


def test_other_data_is_said_in_words(tmp_path: Path) -> None:
    x = torch.linspace(0, 40, 96 * 2).sin().reshape(96, 2)
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "assessed": False, "validation": 0.25}
    ss.train("MLP", x, settings={"width": 8}, out=tmp_path / "run", **options)
    for data, width, words in (
        (x + 1e-3, 8, "holds a training on other data"),
        (x, 16, "holds a training of another network"),
    ):
        with pytest.raises(ValueError, match=words):
            ss.train("MLP", data, settings={"width": width}, out=tmp_path / "run", **options)


def test_files_are_as_open_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    x = torch.linspace(0, 40, 96 * 2).sin().reshape(96, 2)
    ss.train("MLP", x, settings={"width": 8}, out=tmp_path / "run", steps=2, assessed=False)
    modes = {file.stat().st_mode for file in (tmp_path / "run").iterdir() if file.is_file()}
    assert modes == {(tmp_path / "any").stat().st_mode}


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trained(tmp_path / "run", steps=4)
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no file of a training, or is damaged"):
        trained(tmp_path / "run", steps=4)


def test_a_training_goes_on_from_a_model(tmp_path: Path) -> None:
    trained(tmp_path / "a")
    model = ss.load(tmp_path / "a")
    found = ss.train(
        model, {"x": X, "label": LABEL}, out=tmp_path / "b", steps=4, batch_size=16,
        assessed=False,
    )  # fmt: skip
    assert found.card["network"] == model.card["network"]  # type: ignore[attr-defined]
    assert found.model.data_std == model.data_std
    with pytest.raises(ValueError, match="process= has no effect on a score model"):
        ss.train(model, X, process=ss.VP(), steps=1)


@pytest.mark.peers
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\n"
        "from tests.scoresde import test_training_files as here\n"
        "torch.set_default_dtype(torch.float64)\n"
        "here.still(Path(sys.argv[1]), accelerate=True)\n"
    )
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    words = [sys.executable, *launch, "--mixed_precision", "no", "--dynamo_backend", "no"]
    subprocess.run([*words, str(script), str(tmp_path / "two")], check=True, cwd=tmp_path)
    one, two = still(tmp_path / "one").model, ss.load(tmp_path / "two")
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def still(out: Path, **options: Any) -> ss.training.Trained:
    r"""A training without dropout, whose random numbers are those of a process."""

    network = small()
    network.drop = nn.Dropout(0.0)
    data = {"x": X, "label": LABEL}
    return ss.train(network, data, out=out, **{**OPTIONS, **options})


def test_files_for_tensorboard_are_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    trained(tmp_path / "run", tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_the_picture_has_the_losses(tmp_path: Path) -> None:
    found = trained(None, steps=12)
    assert found.plot(tmp_path / "losses.png").exists()
    assert len(found.table().rows) == 3
    with pytest.raises(ValueError, match="there is no loss on held-out data to draw"):
        trained(None, steps=4, validation=0).plot(tmp_path / "none.png")
