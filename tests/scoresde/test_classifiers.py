r"""The classifiers that are shipped, and guidance by them."""

import shutil
from pathlib import Path

import pytest
import torch

import scoresde as ss
from scoresde import guidance
from scoresde.networks import Encoder
from scoresde.training.digits_data import digits
from scoresde.zoo.classifiers import FOLDER

LEVELS = (0.02, 0.5, 1.0, 2.0)


def test_they_name_held_out_digits_as_their_cards_say() -> None:
    test, noisy, clean = (
        digits("test"),
        ss.load_classifier("digits_noisy"),
        ss.load_classifier("digits"),
    )
    for classifier in (noisy, clean):
        said = classifier(test.images).argmax(1)
        named = classifier.card["metrics"]["named rightly"]["noise level 0.02"]
        assert named >= 0.98
        assert float((said == test.labels).double().mean()) == pytest.approx(named, abs=0.01)
    for level in LEVELS:
        t, key = torch.tensor(level), f"noise level {level:g}"
        x = noisy.process.perturb(test.images, t, torch.randn(test.images.shape)).float()
        known = noisy.card["metrics"]["log-probability"]
        found = noisy.log_prob(x, t, label=test.labels).mean()
        assert float(found) == pytest.approx(known[key], abs=0.15)
        if level > 0.5:  # where the other has seen nothing like it
            assert found > clean.log_prob(x, t, label=test.labels).mean() + 0.3
    assert all(file.stat().st_size < 5e5 for file in FOLDER.iterdir())


def test_one_classifier_serves_every_process() -> None:
    own = ss.load_classifier("digits_noisy")
    other = ss.Classifier(
        own.network, ss.VP(), data_std=own.data_std, levels=own.levels, classes=10
    )
    x, level = digits("test").images[:6], torch.tensor([0.1, 0.3, 0.7, 1.5, 4.0, 9.0])
    t = torch.tensor([other.process.at_noise_level(float(s)) for s in level])
    X = x + level.reshape(-1, 1, 1, 1).float() * torch.randn(x.shape).float()
    alpha = other.process.scales(t)[0].reshape(-1, 1, 1, 1)
    want = own(X, own.process.time(-level.log()))
    assert torch.allclose(other((alpha * X).float(), t), want, atol=1e-4)
    assert torch.allclose(want.exp().sum(1), torch.ones(6, dtype=want.dtype))
    wide = own(X.double(), own.process.time(-level.log()))
    assert wide.dtype == torch.float64
    assert torch.allclose(wide, want.double(), atol=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "universal"])
def test_they_guide_the_embedded_model(kind: str) -> None:
    model, label = ss.load("digits"), torch.arange(40) % 10
    if kind == "classifier":
        noisy = ss.load_classifier("digits_noisy")
        guided = guidance.classifier(model, noisy.log_prob, 2.0, label=label)
    else:
        guided = guidance.universal(model, ss.load_classifier("digits").loss, 3.0, label=label)
    solver = "ddim" if kind == "classifier" else "recurrent:repeats=3"
    s = ss.sample(guided, 40, solver=solver, steps=12)
    judge = ss.load_classifier("digits")
    agreed = (judge(s.x).argmax(1) == label).double().mean()
    free = (
        (judge(ss.sample(model, 40, solver="ddim", steps=12).x).argmax(1) == label).double().mean()
    )
    assert agreed >= 0.8
    assert free < 0.4


def test_labels_that_it_does_not_know_are_refused_at_the_door() -> None:
    model, classifier = ss.load("digits"), ss.load_classifier("digits_noisy")
    for label in (torch.tensor([10]), torch.tensor([-1])):
        with pytest.raises(ValueError, match="label must lie in"):
            guidance.classifier(model, classifier.log_prob, label=label)
        with pytest.raises(ValueError, match="label must lie in"):
            guidance.universal(model, classifier.loss, label=label)
    with pytest.raises(ValueError, match="label must lie in"):
        guidance.classifier(model, classifier.log_prob, label=10)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole numbers"):
        guidance.classifier(model, classifier.log_prob, label=torch.tensor([0.5]))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    first = ss.load_classifier("digits_noisy")
    again = ss.load_classifier(ss.save_classifier(first, tmp_path / "new" / "copy", first.card))
    x, t = torch.randn(3, 1, 8, 8).float(), torch.tensor(0.6)
    assert torch.equal(first(x, t), again(x, t))
    assert again.card == first.card
    shutil.copy(FOLDER / "digits.json", tmp_path / "alone.json")
    with pytest.raises(FileNotFoundError, match="has no weights"):
        ss.load_classifier(tmp_path / "alone")
    with pytest.raises(ValueError, match="it lacks levels"):
        ss.load_classifier(Path(ss.zoo.files.EMBEDDED) / "digits.json")
    with pytest.raises(FileNotFoundError, match="digits, digits_noisy"):
        ss.load_classifier("letters")


def test_levels_that_were_not_seen_are_taken_for_the_nearest() -> None:
    noisy, clean = ss.load_classifier("digits_noisy"), ss.load_classifier("digits")
    x = digits("test").images[:20]
    assert torch.equal(noisy(x), noisy(x, torch.tensor(0.02)))
    assert torch.equal(noisy(x, torch.tensor(0.002)), noisy(x, torch.tensor(0.02)))
    assert torch.equal(clean(x, torch.tensor(5.0)), clean(x))
    assert not torch.equal(noisy(x, torch.tensor(5.0)), noisy(x))
    each = [
        noisy.log_ratio(x, torch.tensor(1.0), label=torch.tensor([k])).exp() for k in range(10)
    ]
    assert torch.allclose(torch.stack(each).mean(0), torch.ones(20, dtype=x.dtype), atol=1e-5)
    with pytest.raises(ValueError, match="levels must be two positive"):
        ss.Classifier(noisy.network, ss.VP(), data_std=1.0, levels=(2.0, 1.0))
    with pytest.raises(TypeError, match="whole numbers"):
        noisy.log_prob(x, label=torch.tensor([3.7]))
    with pytest.raises(ValueError, match="was made for the process EDM"):
        guidance.classifier(ss.GaussianOracle(torch.zeros(1, 8, 8), torch.eye(64), ss.VP()), noisy.log_prob,
                            label=torch.tensor([1]))  # fmt: skip


def test_an_encoder_knows_the_size_of_its_images() -> None:
    network = Encoder(channels=3, width=8, multipliers=(1, 2), size=7, classes=4)
    assert network(torch.randn(2, 3, 7, 7), torch.zeros(2)).shape == (2, 4)
