r"""Damaged and hostile files never change a training, and what does not fit is said before the first step."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

import scoresde as ss
from scoresde import distilling
from scoresde.training.folder import LOCK, alone, written
from scoresde.training.run import CHECKPOINT, Run

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
LABEL = torch.arange(60) % 2
OPTIONS: dict[str, Any] = {
    **{"steps": 8, "every": 2, "batch_size": 8, "settings": {}, "assessed": False},
    **{"validation": 0.2, "snapshots": 4},
}


class Plain(nn.Module):
    r"""A network of data and time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(torch.cat([x, t[:, None]], 1))


class Odd(Plain):
    r"""A network whose output is changed."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.change(super().forward(x, t), x)


ss.register_network(Plain)


def plain() -> Plain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Plain().float()


def trained(out: Path | None, data: Any = X, **options: Any) -> ss.training.Trained:
    return ss.train(plain(), data, out=out, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained(tmp_path_factory.mktemp("whole") / "run")
    return next(tmp_path_factory.getbasetemp().glob("whole*")) / "run"


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A training that ended in its fifth step."""

    place, plain_step = tmp_path_factory.mktemp("part") / "run", Run._step

    def ends(self: Run, step: int, batch: Any) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return plain_step(self, step, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "_step", ends)
        trained(place)
    return place


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, dirs_exist_ok=True))


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_no_changed_byte_changes_a_training(part: Path, whole: Path, tmp_path: Path) -> None:
    before = (part / CHECKPOINT).read_bytes()
    for place in range(0, len(before), 83):  # of the length, the header and the numbers
        folder = copied(part, tmp_path / "run")
        changed = bytearray(before)
        changed[place] ^= 0x01
        (folder / CHECKPOINT).write_bytes(changed)
        known = files(folder)
        with pytest.raises(ValueError, match=r"is no file of a training, or is damaged .* remove"):
            trained(folder)
        assert files(folder) == known
    for end in (0, 8, len(before) // 2, len(before) - 1):
        (folder / CHECKPOINT).write_bytes(before[:end])
        with pytest.raises(ValueError, match="is no file of a training, or is damaged"):
            trained(folder)
    (folder / CHECKPOINT).write_bytes(before)
    trained(folder)
    one, other = (load_file(place / "model.safetensors") for place in (folder, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_average_is_not_used(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "run")
    file = sorted((folder / "snapshots").iterdir())[0]
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 0x40]))
    with pytest.raises(ValueError, match="is no file of a training, or is damaged"):
        ss.training.reconstruct(folder, 0.2)
    shutil.copy(folder / "model.safetensors", file)
    with pytest.raises(ValueError, match="is no file of a training, or is damaged"):
        ss.training.reconstruct(folder, 0.2)


def test_code_that_a_card_names_is_not_run(whole: Path, tmp_path: Path) -> None:
    folder, mark = copied(whole, tmp_path / "run"), tmp_path / "mark"
    card = json.loads((folder / "model.json").read_text())
    card["network"] = {"name": "os:mkdir", "settings": {"path": str(mark)}}
    (folder / "model.json").write_text(json.dumps(card))
    found = trained(folder)
    assert not mark.exists()
    kept = ss.load(whole).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in found.model.state_dict().items())


@pytest.mark.parametrize(
    "text", ['{"step": }\n', "[1]\n", '{"loss": 1.0}\n', '{"step": "a"}\n', "\x00}\n"]
)
def test_a_damaged_history_is_refused_and_kept(part: Path, tmp_path: Path, text: str) -> None:
    folder = copied(part, tmp_path / "run")
    (folder / "history.jsonl").write_text(text)
    known = files(folder)
    with pytest.raises(
        ValueError, match="is no history of a training, or is damaged; mend it, or"
    ):
        trained(folder)
    assert files(folder) == known


def test_a_cut_history_has_the_entries_before(part: Path, whole: Path, tmp_path: Path) -> None:
    folder = copied(part, tmp_path / "run")
    text = (folder / "history.jsonl").read_text()
    (folder / "history.jsonl").write_text(text[: text.index("\n") + 1] + '{"step": 4, "of": {}')
    steps = [entry["step"] for entry in trained(folder).history]
    assert steps == [2, 6, 8]


def test_one_training_at_a_time_writes_to_a_folder(part: Path, tmp_path: Path) -> None:
    folder = copied(part, tmp_path / "run")
    known = files(folder)
    with alone(folder), pytest.raises(ValueError, match="another training is writing to"):
        trained(folder)
    assert files(folder) == known
    trained(folder)


def test_what_cannot_be_written_is_said_and_kept(part: Path, tmp_path: Path) -> None:
    folder = copied(part, tmp_path / "run")
    before = (folder / CHECKPOINT).read_bytes()
    (folder / f"{CHECKPOINT}.part").mkdir()
    with pytest.raises(
        ss.training.TrainingError, match=r"checkpoint.* cannot be written .* is kept"
    ):
        trained(folder)
    assert (folder / CHECKPOINT).read_bytes() == before
    full = Path("/dev/full")
    if full.exists():
        with (
            pytest.raises(ss.training.TrainingError, match="/dev/full cannot be written"),
            written(full),
        ):
            full.write_text("1")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out must be a folder that can be written"):
        trained(tmp_path / "file" / "run")


def test_a_folder_holds_one_model(whole: Path) -> None:
    with pytest.raises(ValueError, match="with name=model, which cannot go on with name=other"):
        trained(whole, name="other")
    assert len(list(whole.glob("*.json"))) == 1


def test_a_card_that_is_not_plain_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="could not be loaded again"):
        trained(tmp_path / "run", card={"made of": torch.ones(1)})
    assert not (tmp_path / "run").exists()


NETWORKS: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: plain().requires_grad_(False), "Plain are frozen; call requires_grad_"),
    (lambda: nn.LazyLinear(2), "LazyLinear makes some in its first call; call it once"),
    (lambda: nn.Linear(2, 2), r"Linear is called as network\(input\); wrap it"),
    (
        lambda: Odd(lambda y, x: y.detach()),
        "Odd must have a gradient in its weights, but has none",
    ),
    (lambda: Odd(lambda y, x: y / 0), "output of Odd must be finite, but is NaN or infinite"),
    (lambda: Odd(lambda y, x: x + torch.rand_like(y) + 0 * y), "does not depend on the time"),
]


@pytest.mark.parametrize(("network", "words"), NETWORKS)
def test_networks_that_cannot_learn_are_refused(
    network: Callable[[], nn.Module], words: str
) -> None:
    state = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        made = network().float()
    with pytest.raises(ValueError, match=words):
        ss.train(made, X, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)


class Distribution:
    r"""Noise levels whose log-SNRs are given."""

    def __init__(self, of: Callable[[Tensor], Any]) -> None:
        self.of = of

    def log_snr(self, process: ss.Process, share: Tensor) -> Any:
        return self.of(share)


def constant(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
    return x.mean(1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"levels": ss.losses.levels.LogNormal}, "levels must be a distribution with log_snr"),
    ({"levels": Distribution(lambda u: u[:1])}, "levels must give one log-SNR for each share"),
    ({"levels": Distribution(lambda u: None)}, "levels must give one log-SNR for each share"),
    ({"levels": Distribution(lambda u: 1e4 * u)}, "levels must lie in the domain of"),
    ({"levels": Distribution(lambda u: u / 0)}, "levels must lie in the domain of"),
    ({"loss": lambda model, x: x}, r"loss must be called as loss\(model, x, log_snr, z\), but"),
    ({"loss": constant}, "loss must have a gradient in the weights of the network, but has none"),
    ({"patience": 2, "validation": 0}, "patience=2 has no effect without held-out data"),
    ({"x": X}, "x is in data already; leave out x="),
    ({"data": {"x": X, "k": LABEL}, "k": LABEL}, "k is in data already; leave out k="),
    ({"null": {"label": 2}}, "null has 'label', which is no condition of data"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        trained(None, **options)


def labelled(options: dict[str, Any], label: Tensor = LABEL) -> ss.training.Trained:
    data = {"x": X, "label": label}
    return ss.train("MLP", data, **{**OPTIONS, "settings": {"width": 8}, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"null": {"label": 7}}, r"null=\{'label': 7\} is not what the network takes: index out"),
        ({"null": {"label": [2, 2]}}, r"null\['label'\] must be one number, or have the shape"),
        ({"null": {"label": "none"}}, r"null\['label'\] must be numbers"),
        ({"validation": {"x": X, "label": LABEL + 1}}, r"label must lie in \[0, 1\] for this"),
        ({"validation": {"x": X, "label": LABEL / 2}}, "label of validation must be as that"),
    ],
)
def test_labels_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        labelled(options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.bool])
def test_labels_of_any_whole_dtype_are_the_same(dtype: torch.dtype) -> None:
    one, other = labelled({}).model, labelled({}, LABEL.to(dtype)).model
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_data_with_a_graph_is_trained_on_as_numbers() -> None:
    one, other = trained(None).model, trained(None, X.clone().requires_grad_()).model
    assert all(map(torch.equal, one.parameters(), other.parameters()))


class Given(Dataset[Any]):
    r"""A dataset of a function."""

    def __init__(self, of: Callable[[int], Any], count: int = 60) -> None:
        self.of, self.count = of, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.of(index)


def missing(index: int) -> Tensor:
    if index == 57:
        raise OSError("no file 57")
    return X[index]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Given(missing), r"data cannot give its sample 57 \(OSError: no file 57\)"),
        (Given(lambda i: X[i] / (i != 57)), r"NaN or infinite entries in samples \[57\]\."),
        (Given(lambda i: X[i, : 1 + i % 2]), "samples that do not join into a batch"),
        (Given(lambda i: X[i], 0), "data must hold samples, but Given has the length 0"),
        (Given(lambda i: {"x": X[i], "z": X[i, :1]}), "z must have the shape of data"),
    ],
)
def test_samples_of_a_dataset_are_named(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trained(None, data, coupling="paired" if "z must" in words else "independent")


def taught(file: Path, **options: Any) -> None:
    model = ss.NetworkScore(plain(), ss.EDM(), "edm", shape=(2,))
    paths = distilling.trajectories(model, 4, nodes=3, solver="ddim", progress=False)
    lesson = {"steps": 2, "batch_size": 2, "progress": False, "checkpoint": file}
    distilling.flow_map(model, paths, **{**lesson, **options})


@pytest.mark.parametrize("options", [{"lr": 0.1}, {"seed": 1}, {"steps": 3}, {"average": 0.5}])
def test_a_checkpoint_belongs_to_its_options(tmp_path: Path, options: dict[str, Any]) -> None:
    [name] = options
    words = f"holds a training with {name}=.*, which cannot go on with {name}={options[name]}"
    taught(tmp_path / "student.safetensors")
    with pytest.raises(ValueError, match=words):
        taught(tmp_path / "student.safetensors", **options)
    model = ss.NetworkScore(plain(), ss.EDM(), "edm", shape=(2,))
    file = tmp_path / "tuned.safetensors"
    tuning = {"steps": 2, "batch_size": 2, "checkpoint": file, "updates": 2}
    other = {"updates" if name == "steps" else name: value for name, value in options.items()}
    ss.fine_tune(model, lambda x: x[:, 0], **tuning)
    with pytest.raises(ValueError, match=words):
        ss.fine_tune(model, lambda x: x[:, 0], **{**tuning, **other})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"states": torch.full((3, 4, 2), torch.nan)}, "states must be finite"),
        ({"times": torch.arange(12.0).reshape(3, 4)}, "times must fall along each path"),
        ({"ends": torch.zeros(4, 2).long()}, "ends must hold floating-point numbers"),
        ({"states": torch.zeros(1, 4, 2), "times": torch.ones(1, 4)}, "at least 2 states"),
        ({"condition": {"label": torch.zeros(3)}}, "label must have one entry for each of the 4"),
    ],
)
def test_paths_that_are_none_are_refused(change: dict[str, Any], words: str) -> None:
    times = torch.tensor([3.0, 2.0, 1.0])[:, None].expand(3, 4)
    parts = {"states": torch.zeros(3, 4, 2), "times": times, "ends": torch.zeros(4, 2)}
    paths = distilling.Trajectories(**parts, condition={})
    with pytest.raises(ValueError, match="paths must lie within the times of the model"):
        paths.fit(ss.GaussianOracle(torch.zeros(2), 1.0, ss.VP()))
    with pytest.raises((ValueError, TypeError), match=words):
        distilling.Trajectories(**{**parts, "condition": {}, **change})


def test_a_lock_is_all_that_an_ended_process_leaves(part: Path) -> None:
    assert set(files(part)) >= {LOCK, CHECKPOINT, "history.jsonl"}
    assert not list(part.rglob("*.part"))


def test_residuals_of_a_model_that_is_not_finite_are_refused() -> None:
    broken = ss.NetworkScore(lambda x, t: x / 0, ss.EDM(), "edm", shape=(2,))
    with pytest.raises(ValueError, match="the model must be finite, but its estimates are NaN"):
        ss.residuals(broken, X, derivatives=False)
