import json
import shutil
from pathlib import Path

import pytest
import torch

import scoresde as ss
from scoresde.metrics import energy_distance, floor
from scoresde.training.digits_data import digits
from scoresde.zoo.files import EMBEDDED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for end in ("json", "safetensors"):
        shutil.copy(EMBEDDED / f"digits.{end}", tmp_path)
    return tmp_path


def test_card_holds_what_was_asked_of_the_model() -> None:
    metrics = ss.load("digits").card["metrics"]
    assert metrics["bits/dim without label"] <= 1.90
    assert metrics["bits/dim with label"] <= 1.80
    assert metrics["samples labelled as asked"] >= 0.97
    assert metrics["samples nearer than 1 % of held-out"] < 0.03
    assert (EMBEDDED / "digits.safetensors").stat().st_size < 3e6


def test_bits_per_dim_of_some_held_out_digits() -> None:
    model, test = ss.load("digits"), digits("test")
    x = ss.dequantize(test.images[:12], levels=17)
    options = {"probes": 1, "nodes": 16, "rtol": 1e-2, "atol": 1e-2}
    free = ss.bits_per_dim(ss.log_likelihood(model, x, **options), levels=17).mean()
    bound = ss.log_likelihood(model, x, label=test.labels[:12], **options)
    assert free == pytest.approx(model.card["metrics"]["bits/dim without label"], abs=0.15)
    assert ss.bits_per_dim(bound, levels=17).mean() < free


def test_samples_are_digits() -> None:
    test = digits("test").images
    x = ss.sample(ss.load("digits"), 100, steps=10, label=torch.arange(100) % 10).x
    assert x.dtype is torch.float32
    mean, std = floor(test, 100)
    assert energy_distance(x, test) < mean + 6 * std
    assert energy_distance(torch.randn_like(x), test) > mean + 100 * std


def test_what_is_saved_is_loaded(tmp_path: Path, folder: Path) -> None:
    for path in (folder, folder / "digits.json", folder / "digits", folder / "digits.safetensors"):
        assert ss.load(path).fingerprint == ss.load("digits").fingerprint
    model = ss.load("digits")
    again = ss.load(ss.save(model, tmp_path / "new" / "copy", model.card))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 1.0])
    assert torch.equal(model.denoise(x, t), again.denoise(x, t))
    assert again.process == model.process
    assert again.card == model.card


def test_files_that_are_no_models_are_refused(folder: Path) -> None:
    weights, card = folder / "digits.safetensors", folder / "digits.json"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    with pytest.raises(ValueError, match="not a safetensors file, or is truncated"):
        ss.load(folder)
    weights.write_bytes(content)
    changed = json.loads(card.read_text())
    changed["network"]["name"] = "Nothing"
    card.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="does not describe a model of this package"):
        ss.load(folder)
    card.write_text("{}")
    with pytest.raises(ValueError, match="not a model card: it lacks"):
        ss.load(folder)
    card.write_text("hello")
    with pytest.raises(ValueError, match="not JSON text"):
        ss.load(folder)
    card.unlink()
    with pytest.raises(ValueError, match="has no card beside it"):
        ss.load(weights)
    with pytest.raises(FileNotFoundError, match=r"must hold one card \(\*.json\), not 0"):
        ss.load(folder)
    with pytest.raises(FileNotFoundError, match="neither embedded .digits. nor a file"):
        ss.load("digitz")


class Bomb:
    def __reduce__(self):
        return (Path.write_text, (Path("executed"), "x"))


def test_pickles_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), "model.pt")
    shutil.copy(EMBEDDED / "digits.json", "renamed.json")
    shutil.copy("model.pt", "renamed.safetensors")
    with pytest.raises(ValueError, match="is a pickle, which may run code"):
        ss.load("model.pt")
    with pytest.raises(ValueError, match="not a safetensors file"):
        ss.load("renamed")
    assert not Path("executed").exists()


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match=r"label must lie in \[0, 9\], but one is 12"):
        ss.sample(ss.load("digits"), 2, label=12)
    with pytest.raises(ValueError, match=r"must be \(B, 1, 8, 8\)"):
        ss.encode(ss.load("digits"), torch.zeros(2, 64))


def test_training_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    from scoresde.training.loop import train

    def run(steps_taken: int, checkpoint: Path | None, steps: int = 300) -> list[float]:
        torch.manual_seed(0)
        network, losses = torch.nn.Linear(3, 1), []

        def loss(step: int) -> torch.Tensor:
            x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
            return (network(x) - x.sum(1, keepdim=True)).square().mean()

        for progress in train(
            network, loss, steps=steps, lr=0.05, checkpoint=checkpoint, every=50
        ):
            losses.append(progress.loss)
            if progress.step == steps_taken:
                break
        return losses

    whole, file = run(300, None), tmp_path / "state.safetensors"
    assert run(120, file) == whole[:120]
    assert run(300, file) == whole[100:]  # from the checkpoint at step 100
    assert str(run(300, file)) == "[nan]"  # the report of the end, again
    assert whole[-1] < 0.01 * whole[0]
    with pytest.raises(ValueError, match=r"holds a training with steps=300, .* with steps=200"):
        run(200, file, steps=200)


def test_a_loss_that_is_not_finite_ends_a_training_before_it_spoils_the_weights() -> None:
    from scoresde.training.loop import train

    network = torch.nn.Linear(1, 1)

    def loss(step: int) -> torch.Tensor:
        return network.weight.sum() / (step < 2)

    with pytest.raises(ss.training.TrainingError, match=r"the loss is -?inf at step 3"):
        for _ in train(network, loss, steps=5):
            pass
    assert bool(network.weight.isfinite().all())


def test_training_of_digits_lowers_their_loss(tmp_path: Path) -> None:
    from scoresde.training.digits import train_digits

    torch.set_default_dtype(torch.float32)
    trained = train_digits(steps=8, out=tmp_path)
    losses = [entry["loss"] for entry in trained.history]
    assert sum(losses[-2:]) < sum(losses[:2])
    model = ss.load(tmp_path)
    assert model.denoise(torch.zeros(1, 1, 8, 8), torch.tensor(1.0)).isfinite().all()


def test_the_moments_of_the_data_travel_with_a_model(tmp_path: Path) -> None:
    model = ss.load("digits")
    assert model.moments is not None
    assert model.moments.mean.shape == (1, 8, 8)
    for known in (ss.moments(torch.rand(50, 1, 8, 8), "low_rank", rank=3), None):
        model.moments = known
        card = {**model.card, "moments": None}
        back = ss.load(ss.save(model, tmp_path / "again", card)).moments
        assert (back is None) == (known is None)
        if known is not None and back is not None:
            assert torch.allclose(back.coordinates, known.coordinates, atol=1e-6)
            x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
            assert torch.allclose(back.split(x), known.split(x), atol=1e-5)
