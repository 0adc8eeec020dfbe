r"""The recipe of photographs: its data are crops of the two parts, and a few steps give a model that loads."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_images

import scoresde as ss
from scoresde.training import patches as recipe
from scoresde.training.patches_data import patches


@pytest.mark.parametrize("split", ["train", "test"])
def test_patches_are_crops_of_their_part(split: str) -> None:
    x = patches(3, split, size=5, seed=3)
    grey = [torch.tensor(i).float().mean(2) / 127.5 - 1 for i in load_sample_images().images]
    edge = 480  # of 640 columns
    parts = [g[:, :edge] if split == "train" else g[:, edge:] for g in grey]
    windows = torch.cat([p.unfold(0, 5, 1).unfold(1, 5, 1).reshape(-1, 25) for p in parts])
    for patch in x[:, 0]:
        near = [(windows - way.reshape(-1)).abs().amax(1).min() for way in (patch, patch.flip(1))]
        assert float(min(near)) < 1e-6
    assert torch.equal(x, patches(3, split, size=5, seed=3))
    assert not torch.equal(x, patches(3, split, size=5, seed=4))
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1


def test_the_natural_images_have_a_power_law() -> None:
    found = ss.spectra.spectrum(patches(400, size=32).double())
    factor, exponent = ss.spectra.power_law(found)
    assert 1.5 < exponent < 2.5
    law = factor * found.frequencies[1:16] ** -exponent
    gap = (found.power.mean(0)[1:16].log() - law.log()).abs()
    assert float(gap.max()) < 0.5


def test_a_few_steps_give_a_model_that_loads_and_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "NETWORK": {"width": 8, "multipliers": [1], "blocks": 1},
        "BATCH": 2,
        "KNOWN": 600,
        "TESTED": 4,
        "SHOWN": (0.1, 20.0),
    }.items():
        monkeypatch.setattr(recipe, name, value)
    torch.set_default_dtype(torch.float32)
    [card] = recipe.run(tmp_path / "whole", steps=3)
    model = ss.load(card)
    assert model.shape == (1, 16, 16)
    assert set(next(iter(model.card["metrics"].values()))) == {"noise level 0.1", "noise level 20"}
    assert ss.sample(model, 2, steps=2).x.shape == (2, 1, 16, 16)
    again = ss.load(recipe.run(tmp_path / "again", steps=3)[0])
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(
    ("words", "options"), [("split", {"split": "all"}), ("size", {"size": 999})]
)
def test_odd_parts_are_named(words: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=words):
        patches(2, **options)
