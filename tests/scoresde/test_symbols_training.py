r"""Training on symbols: what is learned is their law, with vectors of the weights of now."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scoresde as ss

CHANCES = torch.tensor([0.5, 0.25, 0.15, 0.1])


class Frequencies(nn.Module):
    r"""Logits that are the same for all states; the exact ones are log-frequencies at every level."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.slope = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        found = self.logits + self.slope * level[:, None]
        return found[:, None].expand(*x.shape[:2], 4)


class Bitwise(nn.Module):
    r"""A small network of two symbols of two bits, which may be given its estimate."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(9, 32), nn.SiLU(), nn.Linear(32, 4))

    def forward(self, x: Tensor, t: Tensor, estimate: Tensor | None = None) -> Tensor:
        known = torch.zeros_like(x) if estimate is None else estimate
        inputs = [x.flatten(1), known.flatten(1), t[:, None].to(x)]
        return self.layers(torch.cat(inputs, 1)).reshape(x.shape)


def symbols(count: int = 2000) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.multinomial(CHANCES, count * 2, replacement=True, generator=draw).reshape(-1, 2)


def information(vectors: Tensor, share: Tensor) -> Tensor:
    r"""The information in nats that noisy vectors have about symbols, for exact logits."""

    embedding = ss.symbols.Embedding(4, 3)
    with torch.no_grad():
        embedding.weight.copy_(vectors)
        logits = lambda x, level: share.log().expand(*x.shape[:2], 4)
        model = ss.symbols.EmbeddedScore(logits, embedding, ss.VP(), evidence=True)
        draw = torch.Generator().manual_seed(1)
        x = torch.multinomial(share, 8000, replacement=True, generator=draw)[:, None]
        z = torch.randn(8000, 1, 3, generator=draw)
        share_of_levels = (torch.arange(8000).double() + 0.5) / 8000
        level = ss.losses.levels.LogUniform(0.1, 20.0).log_snr(model.process, share_of_levels)
        return -(share * share.log()).sum() - ss.losses.cross_entropy(model, x, level, z).mean()


def words() -> ss.symbols.EmbeddedScore:
    embedding = ss.symbols.Embedding(4, 3)
    return ss.symbols.EmbeddedScore(Frequencies(), embedding, ss.VP(), shape=(2,), evidence=True)


def test_training_on_symbols_learns_their_frequencies_and_vectors() -> None:
    model, x = words(), symbols()
    before, levels = model.embedding.vectors.detach(), ss.losses.levels.LogUniform(0.1, 20.0)
    options = {"loss": "cross_entropy", "levels": levels, "lr": 0.05, "assessed": False}
    trained = ss.train(model, x, steps=200, batch_size=256, **options).model
    assert isinstance(trained, ss.symbols.EmbeddedScore)
    found = trained.network.network(torch.zeros(1, 2, 3), torch.zeros(1))[0, 0].softmax(-1)
    share = torch.bincount(x.flatten(), minlength=4) / x.numel()
    assert (found - share).abs().max() < 0.04
    after = trained.embedding.vectors
    assert (after - before).abs().max() > 0.05
    assert information(after, share) > information(before, share) + 0.005
    assert trained.moments is None  # which the training changed
    s = ss.sample(trained, 400, steps=10)
    assert s.x.dtype == torch.int64
    seen = torch.bincount(s.x.flatten(), minlength=4) / s.x.numel()
    assert ((seen - share).abs() < 0.04 + 4 * (share * (1 - share) / 800).sqrt()).all()


def test_data_that_a_training_keeps_follow_the_weights() -> None:
    model, x = words(), symbols(5)
    form = model.transform
    assert form is not None
    held = form.held("x", x)
    assert held.shape == form.inside("x", x).shape
    with torch.no_grad():
        model.embedding.weight.copy_(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    now = form.current(held)
    assert torch.equal(now, model.embedding(x))
    assert now.requires_grad
    assert torch.equal(form.outside(now), x)


def test_losses_take_symbols() -> None:
    model = ss.NetworkScore(Bitwise(), ss.EDM(), "edm", shape=(2, 2))
    model.transform = ss.symbols.Bits(4)
    x, level, z = symbols(8), torch.zeros(8), torch.ones(8, 2, 2)
    codes = model.transform.inside("x", x)
    one, two = (ss.losses.denoising(model, data, level, z) for data in (x, codes))
    assert torch.equal(one, two)


def test_training_on_bits_takes_and_gives_symbols() -> None:
    model = ss.NetworkScore(Bitwise(), ss.EDM(), "edm", shape=(2, 2), data_std=1.0)
    model.transform = ss.symbols.Bits(4)
    trained = ss.train(model, symbols(), steps=20, batch_size=64, assessed=False).model
    s = ss.sample(trained, 5, steps=4, path=True)
    assert s.x.dtype == torch.int64
    assert s.x.shape == (5, 2)
    p = ss.symbols.probabilities(trained, s)
    assert torch.allclose(p.sum(-1), torch.ones(5, 2).double())
    with pytest.raises(ValueError, match="symbols in \\[0, 4\\), but holds 7"):
        ss.train(model, torch.full((40, 2), 7), steps=2)


def test_self_conditioned_bits_give_symbols() -> None:
    inner = ss.NetworkScore(
        Bitwise(), ss.EDM(), "edm", conditions=["estimate"], shape=(2, 2), data_std=1.0
    )
    inner.transform = ss.symbols.Bits(4)
    for mode in ("carried", "twice"):
        model = ss.SelfConditioned(inner, mode)
        s = ss.sample(model, 5, steps=4, path=True)
        assert s.x.dtype == torch.int64
        assert ss.symbols.probabilities(model, s).shape == (5, 2, 4)
    loss = ss.losses.self_conditioned(ss.losses.denoising)
    x, z = symbols(8), torch.ones(8, 2, 2)
    codes = inner.transform.inside("x", x)
    assert bool(loss(inner, codes, torch.zeros(8), z).isfinite().all())


def test_the_last_symbols_are_those_of_the_largest_probability() -> None:
    model = words()
    s = ss.sample(model, 50, steps=6, path=True)
    p = ss.symbols.probabilities(model, s)
    assert torch.equal(p.argmax(-1), s.x)
    assert p.amax(-1).min() > 1 - math.exp(-5)


def test_bits_are_saved_with_a_model(tmp_path: Path) -> None:
    model = ss.NetworkScore(
        ss.networks.UNet(width=8, channels=8), ss.EDM(), "edm", shape=(8, 8, 8)
    )
    model.transform = ss.symbols.Bits(200, gray=True, shape=(8, 8))
    card = {"network": {"name": "UNet", "settings": {"width": 8, "channels": 8}}}
    ss.save(model, tmp_path / "bits", card)
    again = ss.load(tmp_path / "bits.json")
    assert repr(again.transform) == "Bits(200, gray=True)"
    one, two = (ss.sample(m, 2, steps=2).x for m in (model, again))
    assert torch.equal(one, two)
    assert one.shape == (2, 8, 8)


def test_models_of_vectors_are_not_saved(tmp_path: Path) -> None:
    model = words()
    with pytest.raises(ValueError, match="EmbeddedScore, which cannot be saved with a card"):
        ss.save(model, tmp_path / "words")
    with pytest.raises(ValueError, match="EmbeddedScore, which cannot be saved with a card"):
        ss.train(model, symbols(400), loss="cross_entropy", steps=1, out=tmp_path / "run")
    save_file(model.state_dict(), tmp_path / "words.safetensors")
    again = ss.symbols.EmbeddedScore(
        Frequencies(), ss.symbols.Embedding(4, 3, seed=1), ss.VP(), shape=(2,), evidence=True
    )
    again.load_state_dict(load_file(tmp_path / "words.safetensors"))
    one, two = (ss.sample(m, 3, steps=3, dtype=torch.float64).x for m in (model, again))
    assert torch.equal(one, two)


def test_solutions_of_symbols_are_saved(tmp_path: Path) -> None:
    s = ss.sample(words(), 3, steps=2, path=True)
    ss.save_solution(tmp_path / "s.npz", s)
    again = ss.load_solution(tmp_path / "s.npz")
    assert torch.equal(again.x, s.x)
    assert again.x.dtype == torch.int64
