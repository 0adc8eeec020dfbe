r"""Training on symbols: what is learned is their law, with vectors of the weights of now."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scoresde as ss

from ..test_cli import answer, refusal

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


class Given(Bitwise):
    r"""The same network, which cannot be called without its estimate."""

    def forward(self, x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        return super().forward(x, t, estimate)


def self_conditioned() -> ss.NetworkScore:
    torch.manual_seed(0)
    inner = ss.NetworkScore(
        Given(), ss.EDM(), "edm", conditions=["estimate"], shape=(2, 2), data_std=1.0
    )
    inner.transform = ss.symbols.Bits(4)
    return inner


COMPLEMENTS = torch.tensor([[0, 3], [3, 0]]).repeat(60, 1)


def test_self_conditioned_bits_are_trained() -> None:
    inner, loss = self_conditioned(), ss.losses.self_conditioned(ss.losses.denoising)
    before = inner.network.layers[0].weight.detach().clone()
    options = {"batch_size": 64, "lr": 0.03, "assessed": False}
    trained = ss.train(inner, COMPLEMENTS, loss=loss, steps=100, **options).model
    apart = (trained.network.layers[0].weight - before)[:, 4:8]  # of the estimate
    assert apart.abs().max() > 0.01
    for mode in ("carried", "twice"):
        s = ss.sample(ss.SelfConditioned(trained, mode), 200, steps=10)
        right = (s.x.sum(1) == 3) & (s.x[:, 0] % 3 == 0)
        assert right.double().mean() > 0.4  # by chance, 1 / 8
    with pytest.raises(TypeError, match="estimate"):
        ss.train(inner, COMPLEMENTS, steps=2)


@pytest.mark.slow
def test_self_conditioned_bits_are_measured_with_their_estimate() -> None:
    loss = ss.losses.self_conditioned(ss.losses.denoising)
    trained = ss.train(self_conditioned(), COMPLEMENTS, loss=loss, steps=2)
    assert trained.check is not None
    assert "none" not in str(trained.card["metrics"])


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


class Between(nn.Module):
    r"""Logits of two symbols, each of what the vector of the other says, and of a label."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.class_of = nn.Linear(width, 4), nn.Embedding(2, 4)

    def forward(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        return (self.layer(x.flip(1)) + self.class_of(label)[:, None]) * (1 - level[:, None, None])


def between(**options: object) -> ss.symbols.EmbeddedScore:
    torch.manual_seed(0)
    embedding = ss.symbols.Embedding(4, 3, seed=5)
    return ss.symbols.EmbeddedScore(
        Between(3), embedding, ss.VP(), conditions=["label"], shape=(2,), **options
    )


CARD = {"network": {"settings": {"width": 3}}}


@pytest.mark.parametrize("evidence", [False, True])
def test_models_of_vectors_are_saved(tmp_path: Path, evidence: bool) -> None:
    model = between(evidence=evidence)
    file = ss.save(model, tmp_path / "words", CARD, dtype=torch.float64)
    with pytest.raises(ValueError, match="trust=True"):
        ss.load(file)
    again = ss.load(file, trust=True)
    assert isinstance(again, ss.symbols.EmbeddedScore)
    assert again.shape == (2, 3)
    assert repr(again.transform) == repr(model.transform)
    assert torch.equal(again.embedding.weight, model.embedding.weight)
    one, two = (ss.sample(m, 5, steps=4, label=1, seed=0, path=True) for m in (model, again))
    assert torch.equal(one.path, two.path)
    assert torch.equal(one.x, two.x)
    assert torch.equal(ss.symbols.probabilities(again.given(label=1), two),
                       ss.symbols.probabilities(model.given(label=1), one))  # fmt: skip
    third = ss.load(ss.save(again, tmp_path / "again", again.card), trust=True)
    assert (third.embedding.vectors - model.embedding.vectors).abs().max() < 1e-3  # in float16
    single = ss.load(file, trust=True, dtype=torch.float32)
    assert (
        single.embedding.weight.dtype == single.network.network.layer.weight.dtype == torch.float32
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"count": 5, "width": 3, "evidence": False},
            r"must have shape \(5, 3\), but have \(4, 3\)",
        ),
        ({"count": 4, "width": 2, "evidence": False}, "the last size of 'shape' 2"),
        ({"count": 1, "width": 3, "evidence": False}, "'count' must be a whole number from 2"),
        ({"count": 4, "width": 3, "evidence": 1}, "'evidence' must be true or false"),
        ({"count": 4, "width": 3}, "lacks 'evidence'"),
        (None, "must have shape None"),
    ],
)
def test_damaged_cards_of_vectors_are_refused(tmp_path: Path, entry: object, words: str) -> None:
    file = ss.save(between(), tmp_path / "words", CARD)
    card = json.loads(file.read_text())
    file.write_text(json.dumps({**card, "embedding": entry}))
    with pytest.raises(ValueError, match=words):
        ss.load(file, trust=True)
    file.write_text(json.dumps({**card, "transform": {"name": "ComplexPairs"}}))
    with pytest.raises(ValueError, match="'transform' must be null where there is an 'embedding'"):
        ss.load(file, trust=True)


def test_training_on_symbols_is_saved_and_goes_on(tmp_path: Path) -> None:
    x = symbols(100)
    options = {"loss": "cross_entropy", "batch_size": 16, "assessed": False, "label": x[:, 0] // 2}
    options |= {"settings": {"width": 3}, "every": 3}
    whole = ss.train(between(), x, steps=6, out=tmp_path / "whole", **options)
    again = ss.load(tmp_path / "whole", trust=True)
    assert torch.equal(again.embedding.weight, whole.model.embedding.weight.float())
    assert not torch.equal(again.embedding.weight, between().embedding.weight.float())
    one, two = (ss.sample(m, 5, steps=4, label=1, seed=0).x for m in (whole.model, again))
    assert torch.equal(one, two)
    wider = ss.training.reconstruct(tmp_path / "whole", 0.2, trust=True)
    assert not torch.equal(wider.embedding.weight, again.embedding.weight)
    more = ss.train(again, x, steps=2, out=tmp_path / "more", **{**options, "settings": None})
    assert isinstance(more.model, ss.symbols.EmbeddedScore)
    with pytest.raises(ValueError, match="settings= has no effect on a score model"):
        ss.train(again, x, steps=2, **options)

    class Stopped(Exception):
        pass

    def loss(
        model: ss.ScoreModel, x: Tensor, log_snr: Tensor, z: Tensor, **more: Tensor
    ) -> Tensor:
        if next(calls) == stop:
            raise Stopped
        return ss.losses.cross_entropy(model, x, log_snr, z, **more)

    options["loss"] = loss
    for stop in (5, -1):
        calls = itertools.count()
        try:
            found = ss.train(
                between(), x, steps=6, validation=0, out=tmp_path / "parts", **options
            )
        except Stopped:
            assert stop == 5
    calls, stop = itertools.count(), -1
    straight = ss.train(between(), x, steps=6, validation=0, **options)
    assert torch.equal(found.model.embedding.weight, straight.model.embedding.weight)


def test_solutions_of_symbols_are_saved(tmp_path: Path) -> None:
    s = ss.sample(words(), 3, steps=2, path=True)
    ss.save_solution(tmp_path / "s.npz", s)
    again = ss.load_solution(tmp_path / "s.npz")
    assert torch.equal(again.x, s.x)
    assert again.x.dtype == torch.int64


def test_the_command_line_samples_symbols(tmp_path: Path) -> None:
    settings = {"size": 6, "width": 8, "depth": 1}
    network = ss.networks.MLP(**settings).eval()
    model = ss.NetworkScore(network, ss.EDM(), "edm", shape=(6,), data_std=1.0)
    model.transform = ss.symbols.Bits(64, shape=())
    ss.save(model, tmp_path / "bits", {"network": {"settings": settings}})
    sampling = ("sample", "bits.json", "-n", 3, "--steps", 2, "--out", "s.npz")
    assert "mean" not in answer(*sampling, folder=tmp_path)
    found = np.load(tmp_path / "s.npz")["x"]
    assert found.shape == (3,)
    assert found.dtype == np.int64
    words = refusal("likelihood", "bits.json", "--data", "s.npz", folder=tmp_path)
    assert "symbols, which have no density; use ss.symbols.elbo" in words


def test_the_command_line_says_what_loads_chains(tmp_path: Path) -> None:
    chain = ss.chains.Absorbing(3)
    network = ss.networks.MLP(size=3)
    ss.save(ss.chains.ChainModel(network, chain, "symbols"), tmp_path / "c",
            {"network": {"settings": {"size": 3}}})  # fmt: skip
    for command in (("sample", "c.json", "-n", 2), ("info", "c.json")):
        assert "by ss.load_chain" in refusal(*command, folder=tmp_path)
